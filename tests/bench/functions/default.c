/* Echo for the format `default`: standard input to standard output. */
#include <unistd.h>

int main(void)
{
    static char data[65536];
    ssize_t got;

    while ((got = read(STDIN_FILENO, data, sizeof data)) > 0) {
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(STDOUT_FILENO, data + done, got - done);
            if (put < 0)
                return 1;
            done += put;
        }
    }
    return got < 0;
}
