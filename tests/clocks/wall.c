/* A wall clock of one's own, for processes that are started with LD_PRELOAD=this and WALL_CLOCK=file.

   The first eight bytes of the file are an offset in nanoseconds, mapped, so that a change is a jump of the clock for all
   who share the file, at that moment. CLOCK_REALTIME and all that follows it move; CLOCK_MONOTONIC and the others do not.

   A wait until an absolute time of the wall clock does what the kernel does when that clock is set: set back, it lasts
   longer; set forward, it ends. This is the part that libfaketime 0.9.10 does not have: it leaves cnd_timedwait alone,
   in which librdkafka waits, and with any offset no poll comes back. Not covered: timers, clock_nanosleep and futex
   calls by hand on CLOCK_REALTIME, time stamps of files; none of what we run uses them.  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L
#define SLICE (20 * 1000000L) /* so often a wait looks whether the clock has jumped */
#define MONOTONIC_CONDITION 2u /* glibc's bit in __wrefs */

static const _Atomic int64_t nothing;
static const _Atomic int64_t *offset = &nothing;
static int (*clock_gettime_)(clockid_t, struct timespec *);
static int (*cnd_timedwait_)(cnd_t *, mtx_t *, const struct timespec *);
static int (*pthread_cond_timedwait_)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*sem_timedwait_)(sem_t *, const struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("WALL_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    clock_gettime_ = dlsym(RTLD_NEXT, "clock_gettime");
    cnd_timedwait_ = dlsym(RTLD_NEXT, "cnd_timedwait");
    sem_timedwait_ = dlsym(RTLD_NEXT, "sem_timedwait");
    pthread_cond_timedwait_ = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!pthread_cond_timedwait_) pthread_cond_timedwait_ = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (file < 0) return;
    void *seen = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED) offset = seen;
}

static int real(clockid_t clock, struct timespec *now) {
    return clock_gettime_ ? clock_gettime_(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
}

static struct timespec plus(struct timespec at, int64_t more) {
    int64_t rest = at.tv_nsec + more % SECOND;
    at.tv_sec += more / SECOND + (rest >= SECOND) - (rest < 0);
    at.tv_nsec = rest + (rest < 0 ? SECOND : rest >= SECOND ? -SECOND : 0);
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *now = plus(*now, atomic_load(offset));
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec at;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    return now ? (*now = at.tv_sec) : at.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

/* Whether our clock has come to the deadline; else until when, on the real one, to sleep before looking again. */
static int over(const struct timespec *deadline, struct timespec *until) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t seconds = (int64_t)deadline->tv_sec - now.tv_sec;
    int64_t left = seconds > 1000000 ? SLICE : seconds < -1000000 ? -1 : seconds * SECOND + deadline->tv_nsec - now.tv_nsec;
    *until = (struct timespec){0, 0};
    if (left <= 0) return 1;
    real(CLOCK_REALTIME, &now);
    *until = plus(now, left < SLICE ? left : SLICE);
    return 0;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict deadline) {
    for (;;) {
        struct timespec until;
        int last = over(deadline, &until), got = cnd_timedwait_(condition, mutex, &until);
        if (last || got != thrd_timedout) return got;
    }
}

/* Some signal after they have unlocked, and a signal between two slices would be lost: so each slice ends as a spurious
   wake-up, which every caller must expect. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    struct timespec until;
    if (condition->__data.__wrefs & MONOTONIC_CONDITION) return pthread_cond_timedwait_(condition, mutex, deadline);
    int last = over(deadline, &until), got = pthread_cond_timedwait_(condition, mutex, &until);
    return !last && got == ETIMEDOUT ? 0 : got;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    for (;;) {
        struct timespec until;
        int last = over(deadline, &until), got = sem_timedwait_(semaphore, &until);
        if (last || !got || errno != ETIMEDOUT) return got;
    }
}
