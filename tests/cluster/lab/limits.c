/* Preloaded into CRIU on test nodes. Before a dump CRIU asks the kernel for the limits of every process; of another
 * user's process they are told only to who has CAP_SYS_RESOURCE. Where that is refused, the same numbers are read from
 * /proc/PID/limits. Nothing else is changed: no limit is ever set, every other call goes on as it came. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const rows[RLIM_NLIMITS] = {
    [RLIMIT_CPU] = "Max cpu time",
    [RLIMIT_FSIZE] = "Max file size",
    [RLIMIT_DATA] = "Max data size",
    [RLIMIT_STACK] = "Max stack size",
    [RLIMIT_CORE] = "Max core file size",
    [RLIMIT_RSS] = "Max resident set",
    [RLIMIT_NPROC] = "Max processes",
    [RLIMIT_NOFILE] = "Max open files",
    [RLIMIT_MEMLOCK] = "Max locked memory",
    [RLIMIT_AS] = "Max address space",
    [RLIMIT_LOCKS] = "Max file locks",
    [RLIMIT_SIGPENDING] = "Max pending signals",
    [RLIMIT_MSGQUEUE] = "Max msgqueue size",
    [RLIMIT_NICE] = "Max nice priority",
    [RLIMIT_RTPRIO] = "Max realtime priority",
    [RLIMIT_RTTIME] = "Max realtime timeout",
};

static long (*kernel)(long number, ...);

/* What CRIU starts (iptables, tar, its action scripts) is none of our business. */
__attribute__((constructor)) static void begin(void) {
    kernel = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    unsetenv("LD_PRELOAD");
}

static rlim64_t number(const char *word) {
    return strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : RLIM64_INFINITY;
}

static int read_limit(long pid, long which, struct rlimit64 *into) {
    char path[64], line[256], soft[32], hard[32];
    int found = -1;
    size_t name = strlen(rows[which]);
    snprintf(path, sizeof path, "/proc/%ld/limits", pid);
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    while (found && fgets(line, sizeof line, file))
        if (!strncmp(line, rows[which], name) && line[name] == ' ' && sscanf(line + name, " %31s %31s", soft, hard) == 2) {
            into->rlim_cur = number(soft);
            into->rlim_max = number(hard);
            found = 0;
        }
    fclose(file);
    return found;
}

static long limits(long pid, long which, const void *set, struct rlimit64 *get) {
    long answer = kernel(SYS_prlimit64, pid, which, set, get);
    if (answer == -1 && errno == EPERM && !set && get && which >= 0 && which < RLIM_NLIMITS)
        return read_limit(pid, which, get) ? (errno = EPERM, -1) : 0;
    return answer;
}

long syscall(long number, ...) {
    long a[6];
    va_list words;
    va_start(words, number);
    for (int at = 0; at < 6; at++) a[at] = va_arg(words, long);
    va_end(words);
    if (number == SYS_prlimit64) return limits(a[0], a[1], (const void *)a[2], (struct rlimit64 *)a[3]);
    return kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int prlimit64(pid_t pid, __rlimit_resource_t which, const struct rlimit64 *set, struct rlimit64 *get) {
    return (int)limits(pid, which, set, get);
}

int prlimit(pid_t pid, __rlimit_resource_t which, const struct rlimit *set, struct rlimit *get) {
    return (int)limits(pid, which, set, (struct rlimit64 *)get);
}
