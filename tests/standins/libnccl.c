/* A stand-in for NCCL: it sums floats of the stand-in libcuda, whose memory lies on the host.

   Its own words in the plan, P2P being `p2p` or `nop2p` (NCCL_P2P_DISABLE=1):

       ncclCommInitAll p2p: returns 2     and any other call likewise; `hangs`, `crashes`
       ncclGroupEnd nop2p: hangs          a collective that never ends
       async error p2p rank1: gives 6     told by ncclCommGetAsyncError
       wrong sum p2p rank1: gives 17      the element at this index is one too large on this rank
       skipped p2p rank1: gives 1         nothing is written there
       slow p2p: gives 50                 a collective takes so many milliseconds
       said p2p: gives 217                the number in the last error's text
       warned p2p: gives 28               the number of an error in a warning of the log
       version: gives 20908               what ncclGetVersion says

   Ranks may also be processes (ncclCommInitRank): what they send goes through a file beside the library. With P2P each
   opens the next one's memory by CUDA IPC then, as NCCL does, and holds it until the rank is freed.

   Names, numbers and log lines: nccl.h, src/transport/p2p.cc, shm.cc and src/enqueue.cc of NCCL 2.28. */

#pragma GCC diagnostic ignored "-Wunused-function"
#define LIBRARY "libnccl"
#include "standin.h"
#include <stdlib.h>

enum { SUCCESS, UNHANDLED_CUDA = 1, SYSTEM, INVALID_ARGUMENT = 4, INVALID_USAGE, FLOAT32 = 7, SUM = 0, MOST = 16 };
enum { MOST_BYTES = 64 << 20 };

typedef struct {
    char reserved[64];
} IpcHandle;

/* What the ranks share that are processes; each one's floats follow. */
typedef struct {
    int arrived, round;
    IpcHandle handles[MOST]; /* of the memory that each lets the rank before it use */
} Meeting;

typedef struct {
    int rank, ranks, freed;
    Meeting *meeting; /* NULL: all ranks are in this process */
} Comm;

static struct {
    const float *source;
    float *target;
    size_t count;
    Comm *comm;
    void *stream;
} asked[MOST];
static int waiting, open_groups;

static const char *p2p(void)
{
    const char *said = getenv("NCCL_P2P_DISABLE");
    return said && strcmp(said, "1") == 0 ? "nop2p" : "p2p";
}

static unsigned planned(unsigned usual, const char *words)
{
    fate(&usual, "%s", words);
    return usual;
}

#define TOLD(call) fate(NULL, "%s %s", call, p2p())

__attribute__((format(printf, 2, 3))) static void log_line(const char *kind, const char *format, ...)
{
    const char *pattern = getenv("NCCL_DEBUG_FILE"), *level = getenv("NCCL_DEBUG");
    const char *mark = pattern ? strstr(pattern, "%p") : NULL;
    if (!mark || !level || strcmp(level, "INFO") != 0)
        return;
    char path[PATH];
    snprintf(path, sizeof path, "%.*s%d%s", (int)(mark - pattern), pattern, getpid(), mark + 2);
    FILE *log = fopen(path, "a");
    va_list list;
    va_start(list, format);
    fprintf(log, "host:%d:%d [0] NCCL %s ", getpid(), getpid(), kind);
    vfprintf(log, format, list);
    va_end(list);
    fclose(log);
}

int ncclGetVersion(int *version)
{
    *version = (int)planned(28877, "version");
    return TOLD("ncclGetVersion");
}

const char *ncclGetLastError(Comm *comm)
{
    static char text[80];
    char words[40];
    (void)comm;
    snprintf(words, sizeof words, "said %s", p2p());
    unsigned number = planned(0, words);
    snprintf(text, sizeof text, number ? "Cuda failure %u 'peer access is not\nsupported'" : "", number);
    return text;
}

int ncclCommInitAll(Comm **comms, int count, const int *devices)
{
    char words[40];
    snprintf(words, sizeof words, "warned %s", p2p());
    unsigned number = planned(0, words);
    if (number)
        log_line("WARN", "Error: failed to extend /dev/shm, error %u\n", number);
    int code = TOLD("ncclCommInitAll");
    if (code)
        return code;
    if (count < 1 || count > MOST)
        return INVALID_ARGUMENT;
    for (int rank = 0; rank < count; rank++) {
        comms[rank] = calloc(1, sizeof **comms);
        *comms[rank] = (Comm){.rank = rank, .ranks = count};
        int next = (rank + 1) % count;
        log_line("INFO", "Channel 00/0 : %d[%d] -> %d[%d] via %s\n", rank, devices[rank], next, devices[next],
                 strcmp(p2p(), "p2p") == 0 ? "P2P/CUMEM" : "SHM/direct/direct");
    }
    return SUCCESS;
}

/* Wait until all ranks are here. */
static void meet(const Comm *comm)
{
    int round = __atomic_load_n(&comm->meeting->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&comm->meeting->arrived, 1, __ATOMIC_ACQ_REL) == comm->ranks) {
        __atomic_store_n(&comm->meeting->arrived, 0, __ATOMIC_RELEASE);
        __atomic_add_fetch(&comm->meeting->round, 1, __ATOMIC_ACQ_REL);
    }
    while (__atomic_load_n(&comm->meeting->round, __ATOMIC_ACQUIRE) == round)
        usleep(200);
}

typedef struct {
    char internal[128];
} UniqueId;

int ncclGetUniqueId(UniqueId *id)
{
    static int made;
    snprintf(id->internal, sizeof id->internal, "meeting-%d-%d", getpid(), made++);
    return TOLD("ncclGetUniqueId");
}

typedef int (*Allocate)(uint64_t *, size_t);
typedef int (*Export)(IpcHandle *, uint64_t);
typedef int (*OpenShared)(uint64_t *, IpcHandle, unsigned);

/* Let the rank before us use a page of ours, and use one of the next rank's. */
static int open_next(Comm *comm)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!cuda)
        return UNHANDLED_CUDA;
    Allocate allocate = (Allocate)(uintptr_t)dlsym(cuda, "cuMemAlloc_v2");
    Export export = (Export)(uintptr_t)dlsym(cuda, "cuIpcGetMemHandle");
    OpenShared open_shared = (OpenShared)(uintptr_t)dlsym(cuda, "cuIpcOpenMemHandle_v2");
    uint64_t own, theirs;
    if (!allocate || !export || !open_shared || allocate(&own, 4096) ||
        export(&comm->meeting->handles[comm->rank], own))
        return UNHANDLED_CUDA;
    meet(comm);
    IpcHandle next = comm->meeting->handles[(comm->rank + 1) % comm->ranks];
    return open_shared(&theirs, next, 1) ? UNHANDLED_CUDA : SUCCESS;
}

int ncclCommInitRank(Comm **made, int ranks, UniqueId id, int rank)
{
    char path[PATH];
    int code = TOLD("ncclCommInitRank");
    if (code)
        return code;
    if (ranks < 1 || ranks > MOST || rank < 0 || rank >= ranks || strncmp(id.internal, "meeting-", 8) != 0)
        return INVALID_ARGUMENT;
    size_t size = sizeof(Meeting) + (size_t)ranks * MOST_BYTES;
    int file = open(beside(path, id.internal), O_RDWR | O_CLOEXEC | O_CREAT, 0600);
    void *found = MAP_FAILED;
    if (file >= 0 && ftruncate(file, (off_t)size) == 0)
        found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (found == MAP_FAILED)
        return SYSTEM;
    Comm *comm = calloc(1, sizeof *comm);
    *comm = (Comm){.rank = rank, .ranks = ranks, .meeting = found};
    *made = comm;
    meet(comm);
    unlink(path); /* all have it open */
    return ranks > 1 && strcmp(p2p(), "p2p") == 0 ? open_next(comm) : SUCCESS;
}

int ncclGroupStart(void)
{
    open_groups++;
    return TOLD("ncclGroupStart");
}

int ncclAllReduce(const float *source, float *target, size_t count, int type, int op, Comm *comm, void *stream)
{
    if (!open_groups || waiting == MOST || type != FLOAT32 || op != SUM || !comm || comm->freed)
        return INVALID_USAGE;
    asked[waiting].source = source;
    asked[waiting].target = target;
    asked[waiting].count = count;
    asked[waiting].comm = comm;
    asked[waiting++].stream = stream;
    return TOLD("ncclAllReduce");
}

static float *floats_of(const Comm *comm, int rank)
{
    return (float *)((char *)(comm->meeting + 1) + (size_t)rank * MOST_BYTES);
}

/* The sum over processes: everyone's floats are laid out, then everyone adds them up. */
static void sum_with_others(void)
{
    Comm *comm = asked[0].comm;
    size_t count = asked[0].count;
    char words[60];
    memcpy(floats_of(comm, comm->rank), asked[0].source, count * sizeof(float));
    meet(comm);
    snprintf(words, sizeof words, "skipped %s rank%d", p2p(), comm->rank);
    int skipped = planned(0, words) != 0;
    for (size_t i = 0; i < count && !skipped; i++) {
        float total = 0;
        for (int rank = 0; rank < comm->ranks; rank++)
            total += floats_of(comm, rank)[i];
        asked[0].target[i] = total;
    }
    snprintf(words, sizeof words, "wrong sum %s rank%d", p2p(), comm->rank);
    unsigned at = planned(~0U, words);
    if (at < count)
        asked[0].target[at] += 1;
    meet(comm);
}

static void sum(void)
{
    for (int n = 0; n < waiting; n++) {
        char words[60];
        Comm *comm = asked[n].comm;
        snprintf(words, sizeof words, "skipped %s rank%d", p2p(), comm->rank);
        if (planned(0, words))
            continue;
        for (size_t i = 0; i < asked[n].count; i++) {
            float total = 0;
            for (int other = 0; other < waiting; other++)
                total += asked[other].source[i];
            asked[n].target[i] = total;
        }
        snprintf(words, sizeof words, "wrong sum %s rank%d", p2p(), comm->rank);
        unsigned at = planned(~0U, words);
        if (at < asked[n].count)
            asked[n].target[at] += 1;
    }
}

/* What was given to the streams before is done first; the sum itself is done here and now. */
int ncclGroupEnd(void)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    int (*synchronize)(void *) = cuda ? (int (*)(void *))(uintptr_t)dlsym(cuda, "cuStreamSynchronize") : NULL;
    char words[40];
    int code = TOLD("ncclGroupEnd");
    if (!synchronize || !open_groups-- || (waiting && waiting != (asked[0].comm->meeting ? 1 : asked[0].comm->ranks)))
        return INVALID_USAGE;
    for (int n = 0; n < waiting; n++)
        synchronize(asked[n].stream);
    snprintf(words, sizeof words, "slow %s", p2p());
    usleep(1000 * planned(0, words));
    if (!code && waiting && asked[0].comm->meeting)
        sum_with_others();
    else if (!code)
        sum();
    log_line("INFO", "AllReduce: %zu Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..23}\n", asked[0].count * sizeof(float));
    waiting = 0;
    return code;
}

#if MAJOR >= 500
int ncclCommGetAsyncError(Comm *comm, int *error)
{
    char words[60];
    snprintf(words, sizeof words, "async error %s rank%d", p2p(), comm->rank);
    *error = (int)planned(SUCCESS, words);
    return TOLD("ncclCommGetAsyncError");
}
#endif

int ncclCommAbort(Comm *comm)
{
    comm->freed = 1;
    return TOLD("ncclCommAbort");
}

int ncclCommDestroy(Comm *comm)
{
    if (comm->freed)
        return INVALID_ARGUMENT;
    comm->freed = 1;
    return TOLD("ncclCommDestroy");
}
