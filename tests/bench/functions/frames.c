/* Where does an HTTP request end, and what is its body? */
#include "frames.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* What was read and not yet answered. */
struct input {
    int fd;
    char *data;
    size_t used, size;
};

/* Reads more; returns 0 at the end of input or at an error. */
static int read_more(struct input *input)
{
    ssize_t got;

    if (input->used == input->size) {
        input->size = input->size ? input->size * 2 : 16384;
        input->data = realloc(input->data, input->size);
        if (!input->data)
            return 0;
    }
    do
        got = read(input->fd, input->data + input->used, input->size - input->used);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return 0;
    input->used += got;
    return 1;
}

/* Returns the length of the head that the input begins with, its empty line included; 0: none. */
static size_t read_head(struct input *input)
{
    for (;;) {
        char *end = input->used ? memmem(input->data, input->used, "\r\n\r\n", 4) : NULL;
        if (end)
            return end + 4 - input->data;
        if (!read_more(input))
            return 0;
    }
}

/* Finds the length of the body in a head (without: 0); returns 0 if it cannot be told. */
static int find_body_length(const char *head, size_t head_length, size_t *length)
{
    static const char name[] = "\r\nContent-Length:", coded[] = "\r\nTransfer-Encoding:";
    const char *last = head + head_length - 2;

    *length = 0;
    for (const char *line = head; line < last; line++) {
        line = memmem(line, last - line, "\r\n", 2);
        if (!line)
            break;
        if (!strncasecmp(line, coded, sizeof coded - 1))
            return 0;
        if (!strncasecmp(line, name, sizeof name - 1)) {
            char *end;
            *length = strtoull(line + sizeof name - 1, &end, 10);
            if (end == line + sizeof name - 1 || *end != '\r')
                return 0;
        }
    }
    return 1;
}

static int write_all(int fd, struct iovec *parts, int count)
{
    while (count) {
        ssize_t put = writev(fd, parts, count);
        if (put < 0 && errno != EINTR)
            return 0;
        for (; put > 0 || (count && !parts->iov_len); parts++, count--) {
            if ((size_t)put < parts->iov_len) {
                parts->iov_base = (char *)parts->iov_base + put;
                parts->iov_len -= put;
                break;
            }
            put -= parts->iov_len;
        }
    }
    return 1;
}

static int answer(int out, char *body, size_t length)
{
    char head[128];
    int head_length = snprintf(head, sizeof head,
                               "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                               "Content-Length: %zu\r\n\r\n",
                               length);
    struct iovec parts[] = {{head, head_length}, {body, length}};

    return write_all(out, parts, 2);
}

int echo_requests(int in, int out)
{
    struct input input = {.fd = in};
    int cut_off;

    for (;;) {
        size_t length, head = read_head(&input);
        if (!head || !find_body_length(input.data, head, &length))
            break;
        while (input.used - head < length && read_more(&input))
            ;
        if (input.used - head < length || !answer(out, input.data + head, length))
            break;
        input.used -= head + length;
        memmove(input.data, input.data + head + length, input.used);
    }
    cut_off = input.used > 0;
    free(input.data);
    return cut_off;
}
