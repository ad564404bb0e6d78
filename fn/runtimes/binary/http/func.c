/* Greets whom a call's body names. One process answers call after call: an HTTP request each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Reads the next call's header; returns how long its body is, or -1 if no more calls come. */
static long body_length(void)
{
    char *line = NULL;
    size_t room = 0;
    long length = 0;
    int ended = 0;

    while (!ended && getline(&line, &room, stdin) > 0) {
        if (strncasecmp(line, "Content-Length:", 15) == 0)
            length = atol(line + 15);
        ended = strcspn(line, "\r\n") == 0;
    }
    free(line);
    return ended ? length : -1;
}

int main(void)
{
    for (long length = body_length(); length >= 0; length = body_length()) {
        char *name = malloc(length + 1);

        if (name == NULL || fread(name, 1, length, stdin) != (size_t)length)
            return 1;
        name[length] = '\0';
        name[strcspn(name, "\r\n")] = '\0';

        const char *who = name[0] ? name : "World";
        printf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n");
        printf("Content-Length: %zu\r\n\r\nHello, %s!\n", strlen("Hello, !\n") + strlen(who), who);
        fflush(stdout);
        free(name);
    }
    return 0;
}
