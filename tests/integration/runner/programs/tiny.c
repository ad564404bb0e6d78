/* A function in an image that has nothing else in it: it copies its input, after its arguments. */
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char buffer[4096];
    ssize_t size;
    for (int i = 0; i < argc; i++)
        dprintf(1, "%s\n", argv[i]);
    while ((size = read(0, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)size) != size)
            return 1;
    return 0;
}
