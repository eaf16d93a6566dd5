/* What all parts of the stand-in libcuda share: codes, contexts, and how a call begins.

   Numbers: cuda.h of the driver. One lock guards every table; the work of streams is done outside it. */

#define LIBRARY "libcuda"
#include "standin.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_PTX = 218,
    OPERATING_SYSTEM = 304,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    UNKNOWN = 999
};
enum { HOST = -1, PAGEABLE = -2 }; /* places beside the GPUs */

typedef unsigned long long Pointer;

/* A GPU's primary context: there is no other kind. */
typedef struct {
    int gpu, retained;
    int peer[GPUS]; /* whose memory it may use */
} Context;

static Context contexts[GPUS] = {{.gpu = 0}, {.gpu = 1}, {.gpu = 2}, {.gpu = 3}};
static __thread Context *current;
static int physical[GPUS] = {0, 1, 2, 3}; /* the GPU that a GPU of this process really is, since it was moved */
static int initialised;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* Once work has failed like this, every later call of the process gives the same. */
static volatile int lost;

static int lose(int code)
{
    int sticks = code == ILLEGAL_ADDRESS || code == MISALIGNED_ADDRESS || code == LAUNCH_FAILED || code == UNKNOWN;
    if (sticks && !lost)
        lost = code;
    return code;
}

/* The how manieth time these words are said in this process, from 1 on. */
static int nth(const char *words)
{
    static struct said {
        struct said *next;
        int times;
        char words[200];
    } *all;
    pthread_mutex_lock(&lock);
    struct said *one = all;
    while (one && strcmp(one->words, words) != 0)
        one = one->next;
    if (!one) {
        one = calloc(1, sizeof *one);
        snprintf(one->words, sizeof one->words, "%s", words);
        one->next = all;
        all = one;
    }
    int times = ++one->times;
    pthread_mutex_unlock(&lock);
    return times;
}

/* The plan's fate of something that is counted: `WORDS nthN`. */
__attribute__((format(printf, 1, 2))) static int counted(const char *format, ...)
{
    char words[160];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    return lose(fate(NULL, "%s nth%d", words, nth(words)));
}

/* A number of the plan, or the usual one. */
__attribute__((format(printf, 2, 3))) static unsigned planned(unsigned usual, const char *format, ...)
{
    char words[160];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    fate(&usual, "%s", words);
    return usual;
}

/* A GPU's UUID as 16 octets. */
static void uuid_of(int gpu, unsigned char *octets)
{
    const char *digits = UUIDS[gpu];
    for (int n = 0; n < 16; n++, digits += 2) {
        digits += *digits == '-';
        sscanf(digits, "%2hhx", &octets[n]);
    }
}

static const char *place(int where)
{
    static const char *const gpus[GPUS] = {"gpu0", "gpu1", "gpu2", "gpu3"};
    return where == HOST ? "host" : where == PAGEABLE ? "pageable" : gpus[where];
}

/* What keeps any call from being carried out, in the driver's order. */
static int unfit(int needs_context)
{
    if (!initialised)
        return NOT_INITIALIZED;
    if (lost)
        return lost;
    return needs_context && (!current || !current->retained) ? INVALID_CONTEXT : SUCCESS;
}

/* --- the gate: a process that is locked lets no call in that would start work or wait for it --------------- */

static uint32_t closed;  /* a futex */
static uint32_t inside;  /* calls that are under way */
static uint32_t resumed; /* no call has come since the last checkpoint */

static void sleep_on(uint32_t *word, uint32_t value, const struct timespec *most)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, most, NULL, 0);
}

__attribute__((unused)) static void wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0); }

static uint32_t read_of(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

static void leave(int *entered)
{
    (void)entered;
    if (__atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST) || !read_of(&closed))
        return;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Who waits here holds nothing: all but one thread of the process may be frozen while it is checkpointed. */
static int enter(const char *call)
{
    int entered = 0;
    while (!entered) {
        __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
        entered = !read_of(&closed);
        if (!entered) {
            leave(NULL);
            sleep_on(&closed, 1, NULL);
        }
    }
    int waits = strcmp(call, "cuCtxSynchronize") == 0 || strcmp(call, "cuStreamSynchronize") == 0;
    if (__atomic_exchange_n(&resumed, 0, __ATOMIC_SEQ_CST) && waits)
        fate(NULL, "sync after resume");
    return 1;
}

#define ENTER() __attribute__((cleanup(leave), unused)) int entered_ = enter(__func__)

/* A call that works in the current context begins: `CALL gpuN nthN` in the plan. */
#define BEGIN() \
    ENTER(); \
    do { \
        int refused_ = unfit(1); \
        refused_ = refused_ ? refused_ : counted("%s gpu%d", __func__, current->gpu); \
        if (refused_) \
            return refused_; \
    } while (0)

static int can_access(int gpu, int other)
{
    return gpu != other && planned(1, "cuDeviceCanAccessPeer gpu%d gpu%d", gpu, other);
}
