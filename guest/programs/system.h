/* System calls and the program's entry for the architectures of guests, without a C library: the programs here
 * are a few KiB, need no compiler on the user's host, and rebuild to the same bytes (see Makefile). */

/* The kernel's own headers need not be installed for all of them: what is used has its number below, from
 * arch/ARCH/include/uapi/asm/unistd*.h and ioctl.h. */

static long call(long number, long a, long b, long c, long d, long e);
static int run(int argc, char **argv);

#if defined(__x86_64__)

enum {
    READ = 0, WRITE = 1, CLOSE = 3, IOCTL = 16, NANOSLEEP = 35, SOCKET = 41, FORK = 57, EXECVE = 59,
    EXIT = 60, CHDIR = 80, CHROOT = 161, MOUNT = 165, REBOOT = 169, SETHOSTNAME = 170,
    GETDENTS64 = 217, CLOCK_SETTIME = 227, OPENAT = 257, MKDIRAT = 258, MKNODAT = 259,
    UNLINKAT = 263, SYMLINKAT = 266, FCHMODAT = 268, PPOLL = 271, SET_AFFINITY = 203, GET_AFFINITY = 204, STATX = 332,
    SIGPROCMASK = 14, WAIT4 = 61, KILL = 62, UMOUNT = 166, SETSID = 112, GETPID = 39, PRCTL = 157,
    SYNC = 162, SIGNALFD = 289, DUP3 = 292, PIPE2 = 293, SOCKET_BIND = 49, LISTEN = 50, SET_SOCKET = 54
};
enum { NO_DATA = 0, WRITES = 1 };

__asm__(".globl _start\n"
        "_start:\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long fourth __asm__("r10") = d;
    register long fifth __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__i386__)

enum {
    EXIT = 1, FORK = 2, READ = 3, WRITE = 4, CLOSE = 6, EXECVE = 11, CHDIR = 12, MOUNT = 21, IOCTL = 54,
    CHROOT = 61, SETHOSTNAME = 74, REBOOT = 88, NANOSLEEP = 162, GETDENTS64 = 220, CLOCK_SETTIME = 264,
    OPENAT = 295, MKDIRAT = 296, MKNODAT = 297, UNLINKAT = 301, SYMLINKAT = 304, FCHMODAT = 306, SOCKET = 359,
    PPOLL = 309, SET_AFFINITY = 241, GET_AFFINITY = 242, STATX = 383,
    SIGPROCMASK = 175, WAIT4 = 114, KILL = 37, UMOUNT = 52, SETSID = 66, GETPID = 20, PRCTL = 172,
    SYNC = 36, SIGNALFD = 327, DUP3 = 330, PIPE2 = 331, SOCKET_BIND = 361, LISTEN = 363, SET_SOCKET = 366
};
enum { NO_DATA = 0, WRITES = 1 };

__asm__(".globl _start\n"
        "_start:\n"
        "    mov %esp, %eax\n"
        "    and $-16, %esp\n"
        "    sub $12, %esp\n"
        "    push %eax\n"
        "    call begin\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

#elif defined(__s390x__)

enum {
    EXIT = 1, FORK = 2, READ = 3, WRITE = 4, CLOSE = 6, EXECVE = 11, CHDIR = 12, MOUNT = 21,
    IOCTL = 54, CHROOT = 61, SETHOSTNAME = 74, REBOOT = 88, NANOSLEEP = 162, GETDENTS64 = 220,
    CLOCK_SETTIME = 259, OPENAT = 288, MKDIRAT = 289, MKNODAT = 290, UNLINKAT = 294, SYMLINKAT = 297,
    FCHMODAT = 299, SOCKET = 359, PPOLL = 302, SET_AFFINITY = 239, GET_AFFINITY = 240, STATX = 379,
    SIGPROCMASK = 175, WAIT4 = 114, KILL = 37, UMOUNT = 52, SETSID = 66, GETPID = 20, PRCTL = 172,
    SYNC = 36, SIGNALFD = 322, DUP3 = 326, PIPE2 = 325, SOCKET_BIND = 361, LISTEN = 363, SET_SOCKET = 366
};
enum { NO_DATA = 0, WRITES = 1 };

__asm__(".globl _start\n"
        "_start:\n"
        "    lgr %r2, %r15\n"
        "    aghi %r15, -160\n"
        "    brasl %r14, begin\n");

#define NUMBER "1"
#define FIRST "2"
#define SECOND "3"
#define THIRD "4"
#define FOURTH "5"
#define FIFTH "6"
#define TRAP "svc 0"

#elif defined(__powerpc64__)

enum {
    EXIT = 1, FORK = 2, READ = 3, WRITE = 4, CLOSE = 6, EXECVE = 11, CHDIR = 12, MOUNT = 21,
    IOCTL = 54, CHROOT = 61, SETHOSTNAME = 74, REBOOT = 88, NANOSLEEP = 162, GETDENTS64 = 202,
    CLOCK_SETTIME = 245, OPENAT = 286, MKDIRAT = 287, MKNODAT = 288, UNLINKAT = 292, SYMLINKAT = 295,
    FCHMODAT = 297, SOCKET = 326, PPOLL = 281, SET_AFFINITY = 222, GET_AFFINITY = 223, STATX = 383,
    SIGPROCMASK = 174, WAIT4 = 114, KILL = 37, UMOUNT = 52, SETSID = 66, GETPID = 20, PRCTL = 171,
    SYNC = 36, SIGNALFD = 313, DUP3 = 316, PIPE2 = 317, SOCKET_BIND = 327, LISTEN = 329, SET_SOCKET = 339
};
enum { NO_DATA = 1, WRITES = 4 };

#if _CALL_ELF == 2
__asm__(".globl _start\n"
        "_start:\n"
        "    addis 2, 12, .TOC.-_start@ha\n"
        "    addi 2, 2, .TOC.-_start@l\n"
        "    mr 3, 1\n"
        "    clrrdi 1, 1, 4\n"
        "    li 0, 0\n"
        "    stdu 0, -32(1)\n"
        "    bl begin\n"
        "    nop\n");
#else
/* Big-endian ppc64 has function descriptors (ELF ABI version 1): the entry is one. */
__asm__(".globl _start\n"
        ".section \".opd\", \"aw\"\n"
        ".align 3\n"
        "_start: .quad ._start, .TOC.@tocbase, 0\n"
        ".text\n"
        "._start:\n"
        "    mr 3, 1\n"
        "    clrrdi 1, 1, 4\n"
        "    li 0, 0\n"
        "    stdu 0, -128(1)\n"
        "    bl begin\n"
        "    nop\n");
#endif

static long call(long number, long a, long b, long c, long d, long e)
{
    register long zero __asm__("r0") = number;
    register long first __asm__("r3") = a;
    register long second __asm__("r4") = b;
    register long third __asm__("r5") = c;
    register long fourth __asm__("r6") = d;
    register long fifth __asm__("r7") = e;
    /* The overflow bit of the first condition field says that the result is an error's number. */
    __asm__ volatile("sc\n"
                     "bns+ 1f\n"
                     "neg %1, %1\n"
                     "1:"
                     : "+r"(zero), "+r"(first), "+r"(second), "+r"(third), "+r"(fourth), "+r"(fifth)
                     :
                     : "memory", "cr0", "ctr", "r8", "r9", "r10", "r11", "r12");
    return first;
}

#elif defined(__aarch64__) || defined(__riscv) || defined(__loongarch64)

/* include/uapi/asm-generic/unistd.h */
enum {
    IOCTL = 29, MKNODAT = 33, MKDIRAT = 34, UNLINKAT = 35, SYMLINKAT = 36, MOUNT = 40, CHDIR = 49,
    CHROOT = 51, FCHMODAT = 53, OPENAT = 56, CLOSE = 57, GETDENTS64 = 61, READ = 63, WRITE = 64, EXIT = 93,
    NANOSLEEP = 101, CLOCK_SETTIME = 112, REBOOT = 142, SETHOSTNAME = 161, SOCKET = 198, CLONE = 220,
    EXECVE = 221, PPOLL = 73, SET_AFFINITY = 122, GET_AFFINITY = 123, STATX = 291,
    SIGPROCMASK = 135, WAIT4 = 260, KILL = 129, UMOUNT = 39, SETSID = 157, GETPID = 172, PRCTL = 167,
    SYNC = 81, SIGNALFD = 74, DUP3 = 24, PIPE2 = 59, SOCKET_BIND = 200, LISTEN = 201, SET_SOCKET = 208
};
enum { NO_DATA = 0, WRITES = 1 };

#if defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    mov x0, sp\n"
        "    bl begin\n");
#define NUMBER "x8"
#define FIRST "x0"
#define SECOND "x1"
#define THIRD "x2"
#define FOURTH "x3"
#define FIFTH "x4"
#define TRAP "svc 0"
#elif defined(__riscv)
__asm__(".globl _start\n"
        "_start:\n"
        "    .option push\n"
        "    .option norelax\n"
        "    la gp, __global_pointer$\n"
        "    .option pop\n"
        "    mv a0, sp\n"
        "    andi sp, sp, -16\n"
        "    call begin\n");
#define NUMBER "a7"
#define FIRST "a0"
#define SECOND "a1"
#define THIRD "a2"
#define FOURTH "a3"
#define FIFTH "a4"
#define TRAP "ecall"
#else
__asm__(".globl _start\n"
        "_start:\n"
        "    move $a0, $sp\n"
        "    bstrins.d $sp, $zero, 3, 0\n"
        "    bl begin\n");
#define NUMBER "$a7"
#define FIRST "$a0"
#define SECOND "$a1"
#define THIRD "$a2"
#define FOURTH "$a3"
#define FIFTH "$a4"
#define TRAP "syscall 0"
#endif

#else
#error "no such architecture"
#endif

#ifdef TRAP
/* Where the architectures differ in the registers alone. */
static long call(long number, long a, long b, long c, long d, long e)
{
    register long own __asm__(NUMBER) = number;
    register long first __asm__(FIRST) = a;
    register long second __asm__(SECOND) = b;
    register long third __asm__(THIRD) = c;
    register long fourth __asm__(FOURTH) = d;
    register long fifth __asm__(FIFTH) = e;
    __asm__ volatile(TRAP
                     : "+r"(first)
                     : "r"(own), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
                     : "memory"
#if defined(__loongarch64)
                       , "$t0", "$t1", "$t2", "$t3", "$t4", "$t5", "$t6", "$t7", "$t8"
#endif
    );
    return first;
}
#endif

__attribute__((used, noreturn)) void begin(long *stack)
{
    long status = run((int)stack[0], (char **)(stack + 1));
    for (;;)
        call(EXIT, status, 0, 0, 0, 0);
}

/* The number of an ioctl: whether it writes to the driver, the type's letter, its own number, and the bytes. */
#define REQUEST(direction, letter, own, size) \
    ((unsigned long)(direction) << (NO_DATA ? 29 : 30) | (unsigned long)(size) << 16 | (letter) << 8 | (own))

/* Of terminals (ioctl_tty(2)). */
enum { READS = 2 };
#define UNLOCK_TERMINAL REQUEST(WRITES, 'T', 0x31, 4)
#define TERMINAL_NUMBER REQUEST(READS, 'T', 0x30, 4)
#define SET_WINDOW (NO_DATA ? REQUEST(WRITES, 't', 103, 8) : 0x5414)

/* fork(2), which newer architectures have as clone(2) alone. */
static long new_process(void)
{
#if defined(__aarch64__) || defined(__riscv) || defined(__loongarch64)
    enum { CHILD_ENDED = 17 };
    return call(CLONE, CHILD_ENDED, 0, 0, 0, 0);
#else
    return call(FORK, 0, 0, 0, 0, 0);
#endif
}
