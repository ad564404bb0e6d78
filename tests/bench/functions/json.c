/* Echo for the format `json`: one object a line on standard input, one on standard output.
 *
 * The body is copied as it is written, escapes and all, so nothing has to be decoded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A part of a line; `at` is NULL if there is none. */
struct part {
    const char *at;
    size_t length;
};

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* Returns what follows the string at `at`; NULL if it does not end. */
static const char *skip_string(const char *at)
{
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++;
    }
    return *at ? at + 1 : NULL;
}

/* Returns what follows the value at `at`; NULL if it does not end. */
static const char *skip_value(const char *at)
{
    int depth = 0;

    do {
        if (*at == '"') {
            at = skip_string(at);
        } else if (*at == '{' || *at == '[') {
            depth++, at++;
        } else if (*at == '}' || *at == ']') {
            depth--, at++;
        } else if (depth) {
            at = *at ? at + 1 : NULL;
        } else {
            size_t length = strcspn(at, ",}] \t\r\n");
            return length ? at + length : NULL;
        }
    } while (at && depth);
    return at;
}

static int is(struct part text, const char *word)
{
    return text.length == strlen(word) && !memcmp(text.at, word, text.length);
}

/* Finds the members `body` and `is_base64` of the object in a line; returns 0 if there is
 * no object. Names are compared as they are written. */
static int find(const char *line, struct part *body, struct part *is_base64)
{
    const char *at = skip_space(line);

    if (*at != '{')
        return 0;
    for (at = skip_space(at + 1); *at == '"'; at = skip_space(at + 1)) {
        struct part name = {.at = at}, value;
        if (!(at = skip_string(at)))
            return 0;
        name.length = at - name.at;
        at = skip_space(at);
        if (*at != ':')
            return 0;
        value.at = skip_space(at + 1);
        if (!(at = skip_value(value.at)))
            return 0;
        value.length = at - value.at;
        if (is(name, "\"body\""))
            *body = value;
        else if (is(name, "\"is_base64\""))
            *is_base64 = value;
        at = skip_space(at);
        if (*at != ',')
            break;
    }
    return *at == '}' && !*skip_space(at + 1);
}

static void write_member(const char *name, struct part value)
{
    printf(",\"%s\":", name);
    fwrite(value.at, 1, value.length, stdout);
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;

    while (getline(&line, &size, stdin) > 0) {
        struct part body = {0}, is_base64 = {0};
        if (!find(line, &body, &is_base64))
            return 1;
        fputs("{\"status\":200", stdout);
        if (body.at)
            write_member("body", body);
        if (is_base64.at)
            write_member("is_base64", is_base64);
        puts("}");
        if (fflush(stdout))
            return 1;
    }
    free(line);
    return ferror(stdin) != 0;
}
