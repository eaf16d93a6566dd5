/* Suspending: what the target's own thread does to it.

   Between `lock` and `unlock` no other thread is in a call and no stream has work, so the tables are this thread's alone:
   it takes no lock and no memory of malloc's, since all others may be frozen in the middle of anything (CRIU does it). */

enum state { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum action { GET_STATE, LOCK, DO_CHECKPOINT, RESTORE, UNLOCK, ACTIONS };

/* What is asked of a process, and what it answers; it shares this with whoever asks. */
typedef struct {
    uint32_t asked, answered; /* how often; futexes */
    int action, code, state;
    unsigned timeout_ms; /* of a lock: 0 is for ever */
    unsigned pairs;      /* of a restore: old and new UUID of each GPU; none: each its own */
    unsigned char pair[GPUS][2][16];
} Page;

static Page *page;
static enum state phase;
static int stranded; /* it ran out of memory in a restore: nothing helps any more */
static struct holder surrendered;

static void open_gate(void)
{
    __atomic_store_n(&closed, 0, __ATOMIC_SEQ_CST);
    wake(&closed);
}

/* --- lock ------------------------------------------------------------------------------------------------- */

static int busy(void)
{
    int some = read_of(&inside) != 0;
    for (Stream *stream = streams; stream; stream = stream->next)
        some |= stream->first != NULL;
    return some;
}

/* Let no call in, and wait for those that are in and for the work that was given. */
static int to_locked(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    long long ns = until.tv_nsec + page->timeout_ms * 1000000LL;
    until = (struct timespec){until.tv_sec + ns / 1000000000, ns % 1000000000};
    __atomic_store_n(&closed, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&lock);
    int late = 0;
    while (busy() && !late)
        late = (page->timeout_ms ? pthread_cond_timedwait(&changed, &lock, &until) : pthread_cond_wait(&changed, &lock)) != 0;
    late = busy();
    pthread_mutex_unlock(&lock);
    if (late)
        open_gate();
    else
        phase = LOCKED;
    return late ? NOT_READY : SUCCESS;
}

/* --- checkpoint ------------------------------------------------------------------------------------------- */

static char *staging(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unstage(char **staged, size_t size)
{
    if (*staged)
        munmap(*staged, size);
    *staged = NULL;
}

/* Host memory for all that is on GPUs, or for none of it. */
static int stage(void)
{
    int good = 1;
    for (Block *block = blocks; block; block = block->next)
        good = good && (block->kind != DEVICE || (block->staged = staging(block->size)));
    for (Chunk *chunk = chunks; chunk; chunk = chunk->next)
        good = good && (chunk->staged = staging(chunk->size));
    for (Block *block = blocks; block && !good; block = block->next)
        unstage(&block->staged, block->size);
    for (Chunk *chunk = chunks; chunk && !good; chunk = chunk->next)
        unstage(&chunk->staged, chunk->size);
    return good;
}

/* Fill a GPU's file from host memory, or host memory from it. */
static void transfer(int file, char *host, size_t size, int to_gpu)
{
    void *there = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (there == MAP_FAILED)
        abort();
    memcpy(to_gpu ? there : host, to_gpu ? host : there, size);
    munmap(there, size);
}

static void evacuate(int *file, char *staged, size_t size)
{
    transfer(*file, staged, size, 0);
    close(*file);
    *file = -1;
}

/* Give back what this process is known to hold, but for what the plan keeps. */
static void surrender(void)
{
    static int times;
    struct holder *place = ours();
    surrendered = *place;
    times++;
    for (int gpu = 0; gpu < GPUS; gpu++)
        if (!planned(0, "kept vram gpu%d", gpu) && !planned(0, "kept vram gpu%d nth%d", gpu, times)) {
            place->used[gpu] = 0;
            place->present &= ~(1U << gpu);
        }
    if (!place->present)
        place->pid = 0;
    place_of_ours = NULL;
}

static int to_checkpointed(void)
{
    for (Block *block = blocks; block; block = block->next)
        if (block->kind == MANAGED)
            return NOT_SUPPORTED;
    if (!stage())
        return OUT_OF_MEMORY;
    for (Chunk *chunk = chunks; chunk; chunk = chunk->next)
        evacuate(&chunk->file, chunk->staged, chunk->size);
    for (Block *block = blocks; block; block = block->next) {
        if (block->kind == DEVICE)
            evacuate(&block->file, block->staged, block->size);
        if (block->kind == DEVICE || block->kind == MAPPED || block->kind == OPENED)
            addresses((void *)(uintptr_t)block->base, block->size);
    }
    surrender();
    phase = CHECKPOINTED;
    return SUCCESS;
}

/* --- restore ---------------------------------------------------------------------------------------------- */

/* The GPU with this UUID, or -1. */
static int gpu_of(const unsigned char *wanted)
{
    unsigned char octets[16];
    for (int gpu = 0; gpu < GPUS; gpu++) {
        uuid_of(gpu, octets);
        if (memcmp(octets, wanted, sizeof octets) == 0)
            return gpu;
    }
    return -1;
}

static unsigned kind_of_gpu(int gpu) { return planned(0, "kind gpu%d", gpu); }

/* Which GPU is to be used instead of each: all of them or none must be named, and only one of its kind will do. */
static int mapping(int instead[GPUS])
{
    unsigned from = 0, to = 0, all = (1U << GPUS) - 1;
    for (int gpu = 0; gpu < GPUS; gpu++)
        instead[gpu] = gpu;
    for (unsigned n = 0; n < page->pairs; n++) {
        int old = gpu_of(page->pair[n][0]), new = gpu_of(page->pair[n][1]);
        if (old < 0 || new < 0 || kind_of_gpu(old) != kind_of_gpu(new))
            return 0;
        instead[old] = new;
        from |= 1U << old;
        to |= 1U << new;
    }
    return !page->pairs || (page->pairs == GPUS && from == all && to == all);
}

/* What a checkpoint takes and a restore cannot give back: peers' memory in use, and other processes'. */
static int is_beyond_restore(void)
{
    unsigned with_memory = 0;
    for (Block *block = blocks; block; block = block->next) {
        if (block->kind == OPENED)
            return 1;
        with_memory |= block->owner >= 0 ? 1U << block->owner : 0;
    }
    for (int gpu = 0; gpu < GPUS; gpu++)
        for (int peer = 0; peer < GPUS; peer++)
            if (contexts[gpu].peer[peer] && with_memory >> gpu & with_memory >> peer & 1)
                return 1;
    return 0;
}

/* Tell again what this process holds, of which GPU it now is; what the plan had kept is not told twice. */
static void reclaim(const int instead[GPUS])
{
    for (int n = 0; state(1) && n < PROCESSES_AT_ONCE; n++)
        if (state(1)->processes[n].pid == own_pid())
            state(1)->processes[n].pid = 0;
    for (int gpu = 0; gpu < GPUS; gpu++) {
        ours()->used[instead[gpu]] = surrendered.used[gpu];
        ours()->present |= (surrendered.present >> gpu & 1) << instead[gpu];
        physical[gpu] = instead[physical[gpu]];
    }
}

/* Bytes that are on a GPU again, with what the plan has wrong in them. */
static int returned(int gpu, char **staged, size_t size)
{
    unsigned wrong = planned(~0U, "wrong page of restore gpu%d", physical[gpu]);
    size_t pages = size / PAGE;
    char *from = *staged + (wrong != ~0U && pages ? wrong % pages * PAGE : 0);
    for (char *byte = from, *end = from + (pages ? PAGE : size); wrong != ~0U && byte < end; byte++)
        *byte ^= 0x55;
    int file = gpu_file(size);
    if (file < 0)
        abort();
    transfer(file, *staged, size, 1);
    unstage(staged, size);
    return file;
}

static void map_at(const Block *block, int file)
{
    void *where = (void *)(uintptr_t)block->base;
    if (mmap(where, block->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != where)
        abort();
}

static int to_restored(void)
{
    int instead[GPUS];
    if (stranded)
        return OPERATING_SYSTEM;
    if (!mapping(instead))
        return INVALID_VALUE;
    if (is_beyond_restore()) /* as measured on two H200: the state stays what it was, and every restore gives 1 */
        return INVALID_VALUE;
    for (int gpu = 0; gpu < GPUS; gpu++)
        stranded |= surrendered.used[gpu] > left(instead[gpu]);
    if (stranded)
        return OUT_OF_MEMORY;
    reclaim(instead);
    for (Chunk *chunk = chunks; chunk; chunk = chunk->next)
        chunk->file = returned(chunk->gpu, &chunk->staged, chunk->size);
    for (Block *block = blocks; block; block = block->next) {
        if (block->kind == DEVICE)
            block->file = returned(block->owner, &block->staged, block->size);
        if (block->kind == DEVICE || block->kind == MAPPED)
            map_at(block, block->kind == DEVICE ? block->file : block->chunk->file);
    }
    __atomic_store_n(&resumed, 1, __ATOMIC_SEQ_CST);
    phase = LOCKED;
    return SUCCESS;
}

static int to_running(void)
{
    phase = RUNNING;
    open_gate();
    return SUCCESS;
}
