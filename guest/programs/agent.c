/* agent: PID 1 in the joined root, in place of `join` or `init2`. It runs the command, passes its output to the host,
 * says how it ended, and ends what the command left running. The command cannot kill it, not even with `kill -9 -1`;
 * and it reaps orphans.
 *
 * `agent wait`: the host has not said yet that the command may start.
 *
 * In /.quizmatrix are, each ended by a zero byte: the `words` of the command, its `environment`, and the `folder` that
 * it is run in (quizmatrix/run/runlayer.py).
 *
 * A program and no shell script, for the same reason as `join`; and a shell cannot tell a death by a signal from an
 * exit with 128 and more. */

/* The words of a command and its environment: the kernel takes some 2 MiB. */
#define ARENA (16 << 20)

#include "system.h"
#include "text.h"
#include "guest.h"

#define OWN "/.quizmatrix/"
#define IO "/run/quizmatrix/io/"
#define BUSYBOX "/run/quizmatrix/busybox"

enum { KILLED = 9, USER_1 = 10, USER_2 = 12, BROKEN_PIPE = 13, TERMINATED = 15, CHILD_ENDED = 17 };
enum { FIFO = 0010000, NO_HANG = 1, EVERYONE = -1, CANNOT_START = 125, CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

/* One stream of the command's output, from a named pipe to a port. A port can be opened only once; but a command that
 * opens /dev/stderr, as any user, opens its file anew. */
struct stream {
    const char *pipe;
    int port;
    /* `held`: open for reading and writing, so that the pipe keeps its content while no process has it open. */
    long held, from;
    int is_ended;
    char *bytes;
    long size, sent;
};

enum { MOST_AT_ONCE = 1 << 15 }; /* what the driver of a port takes */

/* The error of what would block. */
enum { TRY_AGAIN = -11 };

enum { STREAMS = 2 };
static struct stream streams[STREAMS] = { { .pipe = IO "out", .port = OUTPUT }, { .pipe = IO "err", .port = ERRORS } };

/* Where signals to this process are read. */
static long signals;
/* The command's stdin: a pipe. */
static int input[2];
/* The programs that this one starts have what it got itself. */
static char **environment;

static unsigned long long bit(int signal)
{
    return 1ULL << (signal - 1);
}

static void set_blocked(unsigned long long set)
{
    enum { SET_MASK = 2 };
    call(SIGPROCMASK, SET_MASK, (long)&set, 0, sizeof set, 0);
}

static void make_pipe(const char *path)
{
    call(MKNODAT, HERE, (long)path, FIFO | 0666, 0, 0);
    call(FCHMODAT, HERE, (long)path, 0666, 0, 0);
}

static void begin_streams(void)
{
    make_folders("/run/quizmatrix/io");
    for (struct stream *stream = streams; stream < streams + STREAMS; stream++) {
        make_pipe(stream->pipe);
        stream->bytes = take(MOST_AT_ONCE);
        stream->held = open_file(stream->pipe, READ_WRITE | OWN_ALONE);
        stream->from = open_file(stream->pipe, READ_ONLY | NOT_BLOCKING | OWN_ALONE);
    }
}

static int is_full(const struct stream *stream)
{
    return stream->sent < stream->size;
}

/* Take bytes from the pipe, or pass on what was taken: whichever can be done now. */
static void step(struct stream *stream)
{
    long done;
    if (is_full(stream)) {
        done = call(WRITE, stream->port, (long)(stream->bytes + stream->sent), stream->size - stream->sent, 0, 0);
        /* Where the host takes no more, there is nobody to tell. */
        stream->sent = done > 0 ? stream->sent + done : done == TRY_AGAIN ? stream->sent : stream->size;
        return;
    }
    done = call(READ, stream->from, (long)stream->bytes, MOST_AT_ONCE, 0, 0);
    stream->is_ended = done == 0;
    stream->size = done > 0 ? done : 0;
    stream->sent = 0;
}

static void note_end(long process);

/* Collect processes that have ended. Whether `wanted` is among them; its status is put into `*status`. */
static int has_ended(long wanted, int *status)
{
    int found = 0, how;
    long process;
    while ((process = call(WAIT4, EVERYONE, (long)&how, NO_HANG, 0, 0)) > 0)
        if (process == wanted) {
            found = 1;
            *status = how;
        } else
            note_end(process);
    return found;
}

static void end_guest(void);

/* A file to wait for (poll(2)). */
struct polled { int file; short events, happened; };
enum { CAN_READ = 1, CAN_WRITE = 4 };

/* Of a person's session: the port, and what it reads and writes to (see terminal.h). */
enum { SESSION_FILES = 2 + STREAMS };
static void poll_session(struct polled *polled);
static void step_session(const struct polled *polled);

/* The processes of this program's own, of which the host need not hear. */
enum { FEEDER, LEADER, EXPLAINER, OWN_PROCESSES };
static long own[OWN_PROCESSES];

enum { MOST_TASKS = 500, KERNEL_THREADS = 2 };
static int tasks;

/* Call `act` with each name that is a number in a folder, up to the largest number of tasks. */
static void for_each_number(const char *folder, void (*act)(const char *folder, const char *name))
{
    long long buffer[256];
    long file = open_file(folder, READ_ONLY), got;
    while (file >= 0 && (got = call(GETDENTS64, file, (long)buffer, sizeof buffer, 0, 0)) > 0)
        for (long at = 0; at < got && tasks < MOST_TASKS; at += ((struct entry *)((char *)buffer + at))->size) {
            const char *name = ((struct entry *)((char *)buffer + at))->name;
            if (number(name) > 0)
                act(folder, name);
        }
    call(CLOSE, file, 0, 0, 0, 0);
}

/* Tell the host what a thread is doing: its line of proc(5)'s stat, its wait channel, and its stack in the kernel. Of
 * the kernel's own threads, only those that wait without being interruptible. */
static void tell_task(const char *folder, const char *name)
{
    unsigned long before = taken;
    char *path = TEXT(folder, "/", name), *said = first_line(TEXT(path, "/stat")), *rest = 0, *stack, *channel;
    for (char *at = said ? said : ""; *at; at++)
        if (*at == ')')
            rest = at + 1;
    if (rest) {
        char *fields = TEXT(rest), *state = next_word(&fields);
        long parent = number(next_word(&fields));
        if ((parent != KERNEL_THREADS && number(name) != KERNEL_THREADS) || *state == 'D') {
            tasks++;
            channel = first_line(TEXT(path, "/wchan"));
            stack = content(TEXT(path, "/stack"));
            for (char *at = stack ? stack : ""; *at; at++)
                if (*at == '\n')
                    *at = '|';
            tell("task", TEXT(said, "|", channel ? channel : "", "|", stack ? stack : ""));
        }
    }
    taken = before;
}

static void tell_process(const char *folder, const char *name)
{
    unsigned long before = taken;
    long process = number(name);
    for (int i = 0; i < OWN_PROCESSES; i++)
        if (process == own[i])
            return;
    if (process > 1)
        for_each_number(TEXT(folder, "/", name, "/task"), tell_task);
    taken = before;
}

/* In a process of its own, since what it reads may block: tell the host what all threads are doing, and have the kernel
 * print the stacks of those that wait, and of all CPUs. */
static void start_explaining(void)
{
    long process = new_process();
    if (process < 0)
        tell("explained", "");
    if (process != 0)
        return;
    own[EXPLAINER] = call(GETPID, 0, 0, 0, 0, 0);
    put("/proc/sysrq-trigger", "w", 0);
    for_each_number("/proc", tell_process);
    put("/proc/sysrq-trigger", "l", 0);
    tell("explained", "");
    call(EXIT, 0, 0, 0, 0, 0);
}

/* Whether the host has closed its side of the control port. */
static int is_deaf;

/* Take what the host says while the command runs. */
static void listen(void)
{
    static char said[256];
    long got = call(READ, CONTROL, (long)said, sizeof said - 1, 0, 0);
    is_deaf = got <= 0;
    said[got > 0 ? got : 0] = 0;
    if (place_of(said, "explain"))
        start_explaining();
}

enum { NOTHING, SOMETHING, ENDED };

/* Wait until something happens, but at most so long (negative: for ever), and do what has to be done. Whether it was
 * that the process `wanted` has ended; its status is put into `*status` then. */
static int pass_some(long wanted, int *status, long milliseconds)
{
    enum { HOST = 1 + STREAMS, SESSION, POLLED = SESSION + SESSION_FILES };
    struct { long seconds, nanoseconds; } time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    struct polled polled[POLLED];
    long count;
    polled[0].file = (int)signals;
    polled[0].events = CAN_READ;
    for (int i = 0; i < STREAMS; i++) {
        int writes = is_full(&streams[i]);
        polled[1 + i].file = writes ? streams[i].port : streams[i].is_ended ? -1 : (int)streams[i].from;
        polled[1 + i].events = writes ? CAN_WRITE : CAN_READ;
    }
    polled[HOST].file = is_deaf ? -1 : CONTROL;
    polled[HOST].events = CAN_READ;
    poll_session(polled + SESSION);
    count = call(PPOLL, (long)polled, POLLED, milliseconds < 0 ? 0 : (long)&time, 0, 0);
    if (count <= 0)
        return NOTHING;
    if (polled[0].happened) {
        struct { int signal; char more[124]; } got;
        call(READ, signals, (long)&got, sizeof got, 0, 0);
        /* Those that busybox's reboot(8), halt(8) and poweroff(8) send to PID 1. */
        if (got.signal != CHILD_ENDED)
            end_guest();
        if (has_ended(wanted, status))
            return ENDED;
    }
    for (int i = 0; i < STREAMS; i++)
        if (polled[1 + i].happened)
            step(&streams[i]);
    if (polled[HOST].happened)
        listen();
    step_session(polled + SESSION);
    return SOMETHING;
}

/* Pass output on until the process `wanted` has ended, and return its status (wait(2)); or, if it is 0, until all
 * streams have. Negative: there is no such process, as it could not be started. */
static int pass_on(long wanted)
{
    int status = CANNOT_START << 8;
    while (wanted >= 0) {
        int live = 0;
        for (int i = 0; i < STREAMS; i++)
            live += !streams[i].is_ended || is_full(&streams[i]);
        if ((!wanted && !live) || pass_some(wanted, &status, -1) == ENDED)
            break;
    }
    return status;
}

/* Write what is in the kernel's page cache to the disks: in a process of its own, as that may hang. */
static void sync_disks(void)
{
    long process = new_process();
    if (process == 0) {
        call(SYNC, 0, 0, 0, 0, 0);
        call(EXIT, 0, 0, 0, 0, 0);
    }
    pass_on(process);
}

/* End the guest, as somebody in it has asked for. */
static void end_guest(void)
{
    static int is_asked_for;
    if (!is_asked_for++)
        sync_disks();
    restart();
}

/* Become another program, which does not get the ports. */
static void become(char **words, char **with)
{
    enum { NO_ENTRY = -2 };
    set_blocked(0);
    call(CLOSE, OUTPUT, 0, 0, 0, 0);
    call(CLOSE, ERRORS, 0, 0, 0, 0);
    long result = call(EXECVE, (long)*words, (long)words, (long)with, 0, 0);
    write_text(2, TEXT("quizmatrix: ", *words, " cannot be executed: error ", of_number(-result), "\n"));
    call(EXIT, result == NO_ENTRY ? NOT_FOUND : CANNOT_EXECUTE, 0, 0, 0, 0);
}

/* Open a file as the descriptor `as`, or end this process. */
static void open_as(const char *path, long flags, int as)
{
    long file = open_file(path, flags);
    if (file < 0)
        call(EXIT, CANNOT_START, 0, 0, 0, 0);
    if (file != as) {
        call(DUP3, file, as, 0, 0, 0);
        call(CLOSE, file, 0, 0, 0, 0);
    }
}

/* The texts of a file, each of which a zero byte ends, up to a null pointer. */
static char **texts_of(const char *path)
{
    long count = 0;
    char *text = content(path), *end = arena + taken - 1, **texts;
    taken = (taken + 7) & ~7UL;
    for (char *at = text; text && at < end; at++)
        count += !*at;
    texts = (char **)take((unsigned long)(count + 1) * sizeof *texts);
    for (long i = 0; i < count; i++) {
        texts[i] = text;
        text += length(text) + 1;
    }
    texts[count] = 0;
    return texts;
}

/* End as the process `other` does. status: of wait(2). */
static void end_like(long other)
{
    enum { INTERRUPTED = -4, SET_DUMPABLE = 4 };
    int status = CANNOT_START << 8;
    set_blocked(0);
    /* It has no core of its own to dump. */
    call(PRCTL, SET_DUMPABLE, 0, 0, 0, 0);
    while (other > 0 && call(WAIT4, other, (long)&status, 0, 0, 0) == INTERRUPTED)
        ;
    if (status & 0x7f)
        call(KILL, call(GETPID, 0, 0, 0, 0, 0), status & 0x7f, 0, 0, 0);
    call(EXIT, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff, 0, 0, 0, 0);
}

/* Close this process' ends of the command's stdin: the last one to write ends it. */
static void close_input(int has_stdin)
{
    for (int i = 0; has_stdin && i < 2; i++)
        call(CLOSE, input[i], 0, 0, 0, 0);
}

/* The command's parent leads its session and its process group, so that setsid(1) need not start a process of its own
 * in place of the command. It is also what a `kill -9 -1` of the command ends, which spares the command itself. */
static long start_command(int has_stdin)
{
    long process = new_process();
    if (process != 0)
        return process;
    call(CLOSE, CONTROL, 0, 0, 0, 0);
    call(SETSID, 0, 0, 0, 0, 0);
    put("/proc/self/oom_score_adj", "0\n", 0);
    process = new_process();
    if (process != 0) {
        close_input(has_stdin);
        end_like(process);
    }
    if (has_stdin)
        call(DUP3, input[0], 0, 0, 0, 0);
    else
        open_as("/dev/null", READ_ONLY, 0);
    open_as(streams[0].pipe, WRITE_ONLY, 1);
    open_as(streams[1].pipe, WRITE_ONLY, 2);
    char **folder = texts_of(OWN "folder"), **words = texts_of(OWN "words");
    long result = *folder ? call(CHDIR, (long)*folder, 0, 0, 0, 0) : -1;
    if (result < 0 || !*words) {
        write_text(2, TEXT("quizmatrix: cannot change to ", *folder ? *folder : "a folder", "\n"));
        call(EXIT, CANNOT_START, 0, 0, 0, 0);
    }
    become(words, texts_of(OWN "environment"));
    return -1;
}

/* The device of a port; 0 where there is none of this name. */
static char *port_of_name(const char *wanted)
{
    char *names = names_in("/sys/class/virtio-ports", 1000), *name, *said;
    while ((name = next_line(&names))) {
        said = first_line(TEXT("/sys/class/virtio-ports/", name, "/name"));
        if (said && is_same(said, wanted))
            return TEXT("/dev/", name);
    }
    return 0;
}

/* The device of the port on which the host sends what the command reads. */
static char *stdin_port(void)
{
    for (;;) {
        unsigned long before = taken;
        char *device = port_of_name("quizmatrix.stdin");
        if (device)
            return device;
        taken = before;
        rest(5);
    }
}

/* A new pipe, to read from (0) and to write to (1). No named one: who opens /dev/stdin anew would wait for a writer for
 * ever, once all was written. Any user may open it anew. */
static long make_pipe_ends(int *ends)
{
    long result = call(PIPE2, (long)ends, OWN_ALONE, 0, 0, 0);
    if (result >= 0)
        call(FCHMODAT, HERE, (long)TEXT("/proc/self/fd/", of_number(*ends)), 0666, 0, 0);
    return result;
}

/* An end of a pipe opened anew, so that it can be not blocking and the other processes' is. */
static long opened_anew(int end, long how)
{
    return open_file(TEXT("/proc/self/fd/", of_number(end)), how | NOT_BLOCKING | OWN_ALONE);
}

/* In a process of its own: pass the host's bytes to the command's stdin. It ends when the host's have ended, or when
 * the command has closed its stdin. */
static long start_feeder(void)
{
    static char bytes[1 << 16];
    char byte = 0;
    long process = new_process(), port, to, got;
    if (process != 0)
        return process;
    call(CLOSE, input[0], 0, 0, 0, 0);
    to = input[1];
    port = open_file(stdin_port(), READ_ONLY);
    /* A read gives end of file until the host has opened its side and sent a first line; from then on it is the end. */
    while (byte != '\n')
        if (call(READ, port, (long)&byte, 1, 0, 0) <= 0)
            rest(5);
    while ((got = call(READ, port, (long)bytes, sizeof bytes, 0, 0)) > 0)
        for (long sent = 0, done; sent < got; sent += done)
            if ((done = call(WRITE, to, (long)(bytes + sent), got - sent, 0, 0)) <= 0) {
                tell("unread", "");
                call(EXIT, 0, 0, 0, 0, 0);
            }
    call(EXIT, 0, 0, 0, 0, 0);
    return -1;
}

/* Run a program of busybox to its end. Its status (wait(2)). output: the file for its stdout; 0: none. */
static int run_busybox(char **words, const char *output)
{
    long process = new_process();
    if (process == 0) {
        if (output)
            open_as(output, WRITE_ONLY, 1);
        become(words, environment);
    }
    return pass_on(process);
}

/* Without 9p, /shared goes back to the host as a tar archive on a disk. */
static void return_shared(void)
{
    static char *words[] = { BUSYBOX, "tar", "cf", "-", "-C", "/shared", ".", 0 };
    char *disk = first_line("/run/quizmatrix/shared-disk");
    if (!disk)
        return;
    if (run_busybox(words, disk))
        write_text(ERRORS, "quizmatrix: /shared could not be returned\n");
    sync_disks();
}

/* The architecture of a program that could not be run here, written by the run layer's script `before`. It is the
 * guest's to change. */
static char *foreign(void)
{
    char *said = first_line(IO "foreign");
    for (char *at = said ? said : ""; *at; at++)
        if (!((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || *at == '_'))
            return "";
    return said ? said : "";
}

/* Tell the host how the command ended. */
static void tell_status(const char *event, int code, int signal)
{
    write_text(CONTROL, TEXT("{\"event\":\"", event, "\",\"exit_code\":", of_number(code), ",\"signal\":",
                            signal ? of_number(signal) : "null", ",\"message\":\"", foreign(), "\"}\n"));
}

/* What has to be done once the command has ended, and then tell the host. status: of wait(2). */
static void tell_end(int status)
{
    static char *counters[] = { BUSYBOX, "sh", OWN "counters", 0 };
    int signal = status & 0x7f, code = signal ? 128 + signal : status >> 8 & 0xff;
    /* The kernel may print to the console later than it logs. When this line arrives, the host has everything that the
     * kernel logged while the command ran. Level 0, so that no log level hides it. */
    put("/dev/kmsg", "<0>quizmatrix: the command has ended\n", NOT_BLOCKING);
    /* With --coverage, the counters of the lines that ran go into /shared. */
    if (exists(OWN "counters")) {
        tell_status("packing", code, signal);
        if (run_busybox(counters, 0))
            write_text(ERRORS, "quizmatrix: the counters of lines could not be kept\n");
    }
    return_shared();
    /* Disks that go to the next guest need what is still in this kernel's page cache. If the command failed, no guest
     * gets them; and a sync could hang and hide the result. */
    if (!code && exists(OWN "sync"))
        sync_disks();
    tell_status("exited", code, signal);
}

#include "terminal.h"

/* End the processes that the command left, as they keep the pipes open, and pass on what they have written. */
static void end_streams(void)
{
    call(KILL, EVERYONE, KILLED, 0, 0, 0);
    for (int i = 0; i < STREAMS; i++)
        call(CLOSE, streams[i].held, 0, 0, 0, 0);
    pass_on(0);
    char *marker = first_line(OWN "end-marker");
    for (int i = 0; marker && i < STREAMS; i++)
        write_text(streams[i].port, marker);
}

static int run(int argc, char **argv)
{
    static char from_host[256];
    unsigned long long handled = bit(TERMINATED) | bit(USER_1) | bit(USER_2) | bit(CHILD_ENDED);
    long feeder = 0;
    int has_stdin, status;

    environment = argv + argc + 1;
    /* When the guest runs out of memory, the kernel shall kill another process than this one. */
    put("/proc/self/oom_score_adj", "-1000\n", 0);
    set_blocked(handled | bit(BROKEN_PIPE));
    signals = call(SIGNALFD, -1, (long)&handled, sizeof handled, NOT_BLOCKING | OWN_ALONE, 0);
    begin_streams();
    /* The layers were joined ahead: the host may not have written yet what belongs to the command. */
    if (argc > 1)
        wait_for_start();
    has_stdin = exists(OWN "stdin");
    if (has_stdin) {
        make_pipe_ends(input);
        feeder = own[FEEDER] = start_feeder();
    }
    tell("started", "");
    own[LEADER] = start_command(has_stdin);
    close_input(has_stdin);
    status = pass_on(own[LEADER]);
    if (feeder > 0) {
        call(KILL, feeder, KILLED, 0, 0, 0);
        call(WAIT4, feeder, 0, 0, 0, 0);
    }
    tell_end(status);
    if (exists(OWN "session-words"))
        run_session();
    end_streams();
    /* The host ends this VM. If the host's side of the port closes, the guest ends itself. */
    while (call(READ, CONTROL, (long)from_host, sizeof from_host, 0, 0) > 0)
        ;
    restart();
    return 1;
}
