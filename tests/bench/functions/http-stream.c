/* Echo for the format `http-stream`: requests on the unix socket that FN_LISTENER names. */
#include "frames.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Returns a socket that listens at a path; -1 if that fails.
 *
 * It gets its name when it can be connected to by anybody, and not before. */
static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    size_t room = sizeof address.sun_path;

    if (fd < 0 || (size_t)snprintf(address.sun_path, room, "%s~", path) >= room)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(address.sun_path, 0666) ||
        listen(fd, 16) || rename(address.sun_path, path))
        return -1;
    return fd;
}

int main(void)
{
    static const char scheme[] = "unix:";
    const char *where = getenv("FN_LISTENER");
    int listener, caller;

    if (!where || strncmp(where, scheme, sizeof scheme - 1))
        return 2;
    signal(SIGCHLD, SIG_IGN);
    listener = listen_at(where + sizeof scheme - 1);
    if (listener < 0) {
        perror(where);
        return 1;
    }
    while ((caller = accept(listener, NULL, NULL)) >= 0) {
        /* Who connects and asks nothing keeps nobody waiting. */
        if (fork() == 0)
            return echo_requests(caller, caller);
        close(caller);
    }
    return 1;
}
