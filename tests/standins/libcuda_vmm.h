/* Virtual memory management: a reservation is addresses that nobody may touch, a chunk is a memfd to map there. */

enum { GRANULARITY = 2 << 20 };

typedef struct {
    int type, id;
} Location;

typedef struct {
    int type, handle_types;
    Location location;
    void *security;
    unsigned char flags[8];
} Properties;

typedef struct {
    Location location;
    int flags;
} Access;

typedef struct reservation {
    struct reservation *next;
    Pointer base;
    size_t size;
} Reservation;

static Reservation *reservations;

/* The reservation that a whole range is in; the lock is held. */
static Reservation *reserved(Pointer base, size_t size)
{
    Reservation *one = reservations;
    while (one && (base < one->base || base - one->base + size > one->size))
        one = one->next;
    return one;
}

static int uneven(size_t size) { return size == 0 || size % GRANULARITY != 0; }

/* Addresses without memory. */
static void *addresses(void *where, size_t size)
{
    int fixed = where ? MAP_FIXED : 0;
    void *found = mmap(where, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    return found == MAP_FAILED ? NULL : found;
}

int cuMemGetAllocationGranularity(size_t *size, const Properties *wanted, int which)
{
    BEGIN();
    *size = GRANULARITY;
    return wanted->type == 1 && wanted->location.type == 1 && (which == 0 || which == 1) ? SUCCESS : INVALID_VALUE;
}

int cuMemAddressReserve(Pointer *base, size_t size, size_t alignment, Pointer wanted, unsigned long long flags)
{
    BEGIN();
    (void)alignment, (void)wanted;
    if (uneven(size) || flags)
        return INVALID_VALUE;
    char *found = addresses(NULL, size + GRANULARITY);
    if (!found)
        return OUT_OF_MEMORY;
    size_t before = -(uintptr_t)found % GRANULARITY;
    if (before)
        munmap(found, before);
    munmap(found + before + size, GRANULARITY - before);
    *base = (uintptr_t)found + before;
    Reservation *one = malloc(sizeof *one);
    pthread_mutex_lock(&lock);
    *one = (Reservation){reservations, *base, size};
    reservations = one;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* Whether anything is mapped in a range; the lock is held. */
static int occupied(Pointer base, size_t size)
{
    for (Block *block = blocks; block; block = block->next)
        if (block->base < base + size && base < block->base + block->size)
            return 1;
    return 0;
}

int cuMemAddressFree(Pointer base, size_t size)
{
    BEGIN();
    pthread_mutex_lock(&lock);
    Reservation *one = reserved(base, size), **link = &reservations;
    int good = one && one->base == base && one->size == size && !occupied(base, size);
    while (good && *link != one)
        link = &(*link)->next;
    if (good) {
        *link = one->next;
        munmap((void *)(uintptr_t)base, size);
        free(one);
    }
    pthread_mutex_unlock(&lock);
    return good ? SUCCESS : INVALID_VALUE;
}

int cuMemCreate(Pointer *handle, size_t size, const Properties *wanted, unsigned long long flags)
{
    BEGIN();
    int gpu = wanted->location.id;
    if (uneven(size) || flags || wanted->type != 1 || wanted->location.type != 1 || gpu < 0 || gpu >= GPUS)
        return INVALID_VALUE;
    int file = size > left(physical[gpu]) ? -1 : gpu_file(size);
    if (file < 0)
        return OUT_OF_MEMORY;
    Chunk *chunk = malloc(sizeof *chunk);
    pthread_mutex_lock(&lock);
    *chunk = (Chunk){.next = chunks, .gpu = gpu, .file = file, .size = size};
    chunks = chunk;
    pthread_mutex_unlock(&lock);
    holds(gpu, (int64_t)size);
    *handle = (uintptr_t)chunk;
    return SUCCESS;
}

/* A chunk goes once it is released and mapped nowhere; the lock is held. */
static void dispose(Chunk *chunk)
{
    if (!chunk->released || chunk->mapped)
        return;
    Chunk **link = &chunks;
    while (*link != chunk)
        link = &(*link)->next;
    *link = chunk->next;
    close(chunk->file);
    if (!planned(0, "leak gpu%d", chunk->gpu))
        holds(chunk->gpu, -(int64_t)chunk->size);
    free(chunk);
}

int cuMemRelease(Pointer handle)
{
    BEGIN();
    Chunk *chunk = (Chunk *)(uintptr_t)handle;
    if (!chunk || chunk->released)
        return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    chunk->released = 1;
    dispose(chunk);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuMemMap(Pointer base, size_t size, size_t offset, Pointer handle, unsigned long long flags)
{
    BEGIN();
    Chunk *chunk = (Chunk *)(uintptr_t)handle;
    void *where = (void *)(uintptr_t)base;
    pthread_mutex_lock(&lock);
    int good = chunk && !chunk->released && !offset && !flags && size == chunk->size && base % GRANULARITY == 0
               && reserved(base, size) && !occupied(base, size);
    good = good && mmap(where, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, chunk->file, 0) == where;
    if (good)
        chunk->mapped++;
    pthread_mutex_unlock(&lock);
    if (!good)
        return INVALID_VALUE;
    keep((Block){
        .base = base, .size = size, .kind = MAPPED, .owner = chunk->gpu, .maker = current->gpu, .chunk = chunk});
    return SUCCESS;
}

/* The next mapping that lies within a range; the lock is held. */
static Block *mapped_in(Pointer base, size_t size, const Block *after)
{
    Block *block = after ? after->next : blocks;
    while (block && !(block->kind == MAPPED && block->base >= base && block->base + block->size <= base + size))
        block = block->next;
    return block;
}

int cuMemUnmap(Pointer base, size_t size)
{
    BEGIN();
    drain(current);
    pthread_mutex_lock(&lock);
    int found = 0;
    for (Block *block; (block = mapped_in(base, size, NULL)); found = 1) {
        Chunk *chunk = block->chunk;
        addresses((void *)(uintptr_t)block->base, block->size);
        forget(block);
        chunk->mapped--;
        dispose(chunk);
    }
    pthread_mutex_unlock(&lock);
    return lost ? lost : found ? SUCCESS : INVALID_VALUE;
}

int cuMemSetAccess(Pointer base, size_t size, const Access *wanted, size_t count)
{
    BEGIN();
    int found = 0;
    for (const Access *one = wanted; one < wanted + count; one++) {
        int gpu = one->location.id;
        if (one->location.type != 1 || gpu < 0 || gpu >= GPUS)
            return INVALID_VALUE;
        pthread_mutex_lock(&lock);
        for (Block *block = NULL; (block = mapped_in(base, size, block)); found = 1)
            block->access = one->flags ? block->access | 1U << gpu : block->access & ~(1U << gpu);
        pthread_mutex_unlock(&lock);
    }
    return found ? SUCCESS : INVALID_VALUE;
}
