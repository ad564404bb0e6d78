/* The first process of every sandbox: it starts the function, once for each call or once for all.
 *
 *     init SOCKET PROGRAM [ARGUMENT...]
 *
 * It connects to its runner through the unix socket SOCKET, once, and does what it is told there;
 * docs/sandbox-protocol.md has the frames. PROGRAM is the image's own entry point. The function can
 * neither inherit the connection (it closes on exec), nor open it again (the runner listens for one
 * connection), nor reach into this process (it is not dumpable, and signals to a pid 1 that come from
 * inside are lost). A frame that is not as it should be ends this process, and with it the sandbox.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAGIC = 0x314c494d, VERSION = 1 }; /* "MIL1" */
enum { START = 1, CONNECT = 2, HELLO = 16, ENDED = 17, CONNECTED = 18 };
enum { BODY_MAX = 1 << 20, VARIABLES_MAX = 1 << 16, NEVER = 127, BAD_FRAME = 65, BAD_USE = 64 };

struct frame { uint32_t magic, kind, length, value; };
struct ended { int32_t error, status; uint32_t oom_kills, changed; uint64_t peak_kib; };
/* What a process of the same user can change here from outside, and every function inherits. */
struct inherited { struct rlimit limits[RLIM_NLIMITS]; cpu_set_t cpus; int nice, policy, io; };

static char body[BODY_MAX + 1];
static char *variables[VARIABLES_MAX + 1];
static struct inherited at_start;
static int runner, memory_events = -1;
static pid_t function;
static char **command;

static void send_all(const void *data, size_t size, int fd)
{
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    if (sendmsg(runner, &message, MSG_NOSIGNAL) != (ssize_t)size)
        exit(0); /* The runner is gone. A frame is far smaller than any socket's buffer. */
}

/* Read the next frame: its fixed part, up to three file descriptors that come with it, its body. */
static void receive(struct frame *frame, int fds[3], int *count)
{
    union { char space[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
    size_t got = 0;
    *count = 0;
    while (got < sizeof *frame) {
        struct iovec part = {(char *)frame + got, sizeof *frame - got};
        /* The space is rounded up, and then has room for a fourth; the length has not. */
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
                                 .msg_controllen = CMSG_LEN(3 * sizeof(int))};
        ssize_t size = recvmsg(runner, &message, MSG_CMSG_CLOEXEC);
        if (size <= 0)
            exit(0);
        got += (size_t)size;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        if (message.msg_flags & MSG_CTRUNC || (head && *count))
            exit(BAD_FRAME);
        if (head && head->cmsg_type == SCM_RIGHTS) {
            *count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(head), (size_t)*count * sizeof(int));
        }
    }
    if (frame->magic != MAGIC || frame->length > BODY_MAX)
        exit(BAD_FRAME);
    for (size_t at = 0; at < frame->length;) {
        ssize_t size = read(runner, body + at, frame->length - at);
        if (size <= 0)
            exit(0);
        at += (size_t)size;
    }
    body[frame->length] = 0;
}

/* How often the kernel has killed something in this sandbox for want of memory. */
static long oom_kills(void)
{
    char text[512];
    ssize_t size = memory_events < 0 ? 0 : pread(memory_events, text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = 0;
    char *line = strstr(text, "oom_kill ");
    return line ? atol(line + 9) : 0;
}

static void look_around(struct inherited *seen)
{
    memset(seen, 0, sizeof *seen);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++)
        getrlimit(i, &seen->limits[i]);
    sched_getaffinity(0, sizeof seen->cpus, &seen->cpus);
    seen->nice = getpriority(PRIO_PROCESS, 0);
    seen->policy = (int)syscall(SYS_sched_getscheduler, 0); /* musl's own function only fails. */
    seen->io = (int)syscall(SYS_ioprio_get, 1, 0);
}

static const char *value_of(const char *name, size_t length)
{
    for (char **at = variables; *at; at++)
        if (!strncmp(*at, name, length) && (*at)[length] == '=')
            return *at + length + 1;
    return NULL;
}

/* Put together the call's variables (zero-terminated, in the body) and the image's own beneath. */
static void set_variables(size_t length)
{
    size_t count = 0;
    for (size_t at = 0; at < length; at += strlen(body + at) + 1)
        if (count < VARIABLES_MAX)
            variables[count++] = body + at;
    variables[count] = NULL;
    for (char **own = environ; *own && count < VARIABLES_MAX; own++) {
        size_t name = strcspn(*own, "=");
        if (!value_of(*own, name)) {
            variables[count++] = *own;
            variables[count] = NULL;
        }
    }
}

/* Start the command with these files as its standard ones; 0, or why not. */
static int spawn(const int fds[3])
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    memset(&all, 0xff, sizeof all); /* sigfillset leaves out two, which would then be ignored. */
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_init(&files);
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_adddup2(&files, fds[i], i);
    int error = ENOENT;
    if (strchr(command[0], '/'))
        error = posix_spawn(&function, command[0], &files, &attributes, command, variables);
    else {
        const char *path = value_of("PATH", 4);
        path = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        int denied = 0;
        for (; error && path; path = strchr(path, ':') ? strchr(path, ':') + 1 : NULL) {
            char file[4096];
            int size = (int)strcspn(path, ":");
            snprintf(file, sizeof file, "%.*s/%s", size, size ? path : ".", command[0]);
            error = posix_spawn(&function, file, &files, &attributes, command, variables);
            if (error && error != ENOENT && error != ENOTDIR && error != EACCES)
                break;
            denied |= error == EACCES;
        }
        if (error == ENOENT && denied)
            error = EACCES;
    }
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return error;
}

static void tell_end(int error, int status, long kills, long peak_kib)
{
    struct inherited now;
    look_around(&now);
    struct { struct frame frame; struct ended ended; } told = {
        {MAGIC, ENDED, sizeof told.ended, 0},
        {error, status, (uint32_t)kills, !!memcmp(&now, &at_start, sizeof now), (uint64_t)peak_kib}};
    send_all(&told, sizeof told, -1);
}

static void start(const struct frame *frame, const int fds[3])
{
    set_variables(frame->length);
    int error = spawn(fds);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    if (error) {
        function = 0;
        tell_end(error, 0, 0, 0);
    }
}

/* The function has ended: nothing that it started may outlive it. Then its end is told. */
static void finish(int status, long peak_kib)
{
    static long kills_before;
    do
        kill(-1, SIGKILL);
    while (wait(NULL) > 0 || errno != ECHILD);
    long kills = oom_kills();
    function = 0;
    tell_end(0, status, kills - kills_before, peak_kib);
    kills_before = kills;
}

static void reap(void)
{
    struct rusage used;
    int status;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &used)) > 0)
        if (pid == function)
            finish(status, used.ru_maxrss);
}

/* Open the unix socket that the function listens at, and hand the connection to the runner. */
static void connect_to(const struct frame *asked)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (asked->length >= sizeof address.sun_path)
        exit(BAD_FRAME);
    memcpy(address.sun_path, body, asked->length + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failed = fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address);
    struct frame told = {MAGIC, CONNECTED, 0, failed ? (uint32_t)errno : 0};
    send_all(&told, sizeof told, failed ? -1 : fd);
    if (fd >= 0)
        close(fd);
}

static void obey(void)
{
    struct frame frame;
    int fds[3], count;
    receive(&frame, fds, &count);
    if (frame.kind == START && count == 3 && !function)
        start(&frame, fds);
    else if (frame.kind == CONNECT && count == 0)
        connect_to(&frame);
    else
        exit(BAD_FRAME);
}

static void arrive(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct frame hello = {MAGIC, HELLO, 0, VERSION};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    runner = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (runner < 0 || connect(runner, (struct sockaddr *)&address, sizeof address))
        exit(NEVER);
    send_all(&hello, sizeof hello, -1);
}

int main(int argc, char **argv)
{
    /* Its last deed is to kill every process it sees: only a sandbox's first process may do that. */
    if (argc < 3 || getpid() != 1)
        return BAD_USE;
    for (int fd = 0; fd >= 0 && fd < 3;) /* what it is sent must not become its standard files */
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_DUMPABLE, 0);
    command = argv + 2;
    look_around(&at_start);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    memory_events = open("/sys/fs/cgroup/memory/memory.oom_control", O_RDONLY | O_CLOEXEC);
    if (memory_events < 0)
        memory_events = open("/sys/fs/cgroup/memory.events", O_RDONLY | O_CLOEXEC);
    arrive(argv[1]);
    struct pollfd watched[] = {{runner, POLLIN, 0}, {signals, POLLIN, 0}};
    for (;;) {
        struct signalfd_siginfo told;
        if (poll(watched, 2, -1) < 0)
            continue;
        if (watched[1].revents && read(signals, &told, sizeof told) > 0)
            reap();
        if (watched[0].revents)
            obey();
    }
}
