/* Echo for the format `http`: requests on standard input, answers on standard output. */
#include "frames.h"

#include <unistd.h>

int main(void)
{
    return echo_requests(STDIN_FILENO, STDOUT_FILENO);
}
