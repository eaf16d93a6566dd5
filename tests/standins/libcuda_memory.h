/* Memory: every byte lies on the host, at the address that the process is given, and knows whose it is.

   A GPU's memory is a memfd, so that another process can map it (IPC) and it outlives the one that made it there. */

enum kind { DEVICE, OPENED, MAPPED, PINNED, MANAGED };

typedef struct chunk {
    struct chunk *next;
    int gpu, file, mapped, released;
    size_t size;
    char *staged; /* its bytes, while the process is checkpointed */
} Chunk;

typedef struct block {
    struct block *next;
    Pointer base;
    size_t size;
    enum kind kind;
    int owner;           /* the GPU whose memory it is, or HOST */
    int maker;           /* the GPU whose context made it: it goes with it */
    int file;            /* of DEVICE */
    Chunk *chunk;        /* behind MAPPED */
    unsigned access;     /* to MAPPED: a bit for each GPU */
    char *shadow[GPUS];  /* where a GPU's writes go that never arrive */
    char *staged;        /* its bytes, while the process is checkpointed */
} Block;

static Block *blocks;
static Chunk *chunks;

/* The block that an address is in; the lock is held. */
static Block *at(Pointer address)
{
    Block *block = blocks;
    while (block && (address < block->base || address - block->base >= block->size))
        block = block->next;
    return block;
}

static Block *keep(Block what)
{
    Block *block = malloc(sizeof *block);
    *block = what;
    pthread_mutex_lock(&lock);
    block->next = blocks;
    blocks = block;
    pthread_mutex_unlock(&lock);
    return block;
}

static void forget(Block *block)
{
    Block **link = &blocks;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    for (int gpu = 0; gpu < GPUS; gpu++)
        if (block->shadow[gpu])
            munmap(block->shadow[gpu], block->size);
    free(block);
}

/* This process's number, as whoever reads the same /proc knows it. */
static int own_pid(void)
{
    char text[32] = "";
    return readlink("/proc/self", text, sizeof text - 1) > 0 ? atoi(text) : getpid();
}

/* Where this process tells what it holds: a place of its own in the state, until it gives that up. */
static struct holder *place_of_ours;

static struct holder *ours(void)
{
    static struct holder nowhere;
    for (int n = 0; !place_of_ours && state(1) && n < PROCESSES_AT_ONCE; n++) {
        struct holder *one = &state(1)->processes[n];
        int was = one->pid;
        if (!lives(was) && __atomic_compare_exchange_n(&one->pid, &was, own_pid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            one->present = 0;
            memset(one->used, 0, sizeof one->used);
            place_of_ours = one;
        }
    }
    return place_of_ours ? place_of_ours : &nowhere;
}

static void holds(int gpu, int64_t more)
{
    __atomic_fetch_add(&ours()->used[physical[gpu]], (uint64_t)more, __ATOMIC_SEQ_CST);
}

/* Free bytes of a GPU, the real one, for all processes: what the plan gives it (MiB), less what is in use. */
static uint64_t left(int gpu)
{
    uint64_t has = (uint64_t)planned(1024, "memory gpu%d", gpu) << 20, used = in_use(gpu);
    return used < has ? has - used : 0;
}

static int gpu_file(size_t size)
{
    int file = memfd_create("stand-in-gpu", MFD_CLOEXEC);
    if (file >= 0 && ftruncate(file, (off_t)size) < 0) {
        close(file);
        file = -1;
    }
    return file;
}

static void *host_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int may(int gpu, const Block *block)
{
    switch (block->kind) {
    case PINNED:
    case MANAGED: return 1;
    case MAPPED: return block->access >> gpu & 1;
    default: return block->owner == gpu || contexts[gpu].peer[block->owner];
    }
}

/* Whether all of a range is memory that CUDA gave, and that this GPU may use (-1: it does not matter which). */
static int reaches(int gpu, Pointer address, size_t size)
{
    int good = 1;
    pthread_mutex_lock(&lock);
    do {
        Block *block = at(address);
        good = block && (gpu < 0 || may(gpu, block));
        size_t inside = good ? block->base + block->size - address : 0;
        address += inside;
        size -= inside < size ? inside : size;
    } while (good && size);
    pthread_mutex_unlock(&lock);
    return good;
}

/* Whose memory an address is: a GPU, HOST, or PAGEABLE where CUDA knows nothing of it. */
static int owner_of(Pointer address)
{
    pthread_mutex_lock(&lock);
    Block *block = at(address);
    int owner = block ? block->owner : PAGEABLE;
    pthread_mutex_unlock(&lock);
    return owner;
}

/* Where a GPU's loads and stores at an address really go. In a mirror, what it writes to a peer reaches only itself. */
static char *window(int gpu, Pointer address, int writing)
{
    int owner = owner_of(address);
    if (owner < 0 || owner == gpu || !planned(0, "mirror gpu%d gpu%d", gpu, owner))
        return (char *)(uintptr_t)address;
    pthread_mutex_lock(&lock);
    Block *block = at(address);
    if (writing && !block->shadow[gpu])
        block->shadow[gpu] = memcpy(host_memory(block->size), (void *)(uintptr_t)block->base, block->size);
    char *shadow = block->shadow[gpu];
    Pointer offset = address - block->base;
    pthread_mutex_unlock(&lock);
    return shadow ? shadow + offset : (char *)(uintptr_t)address;
}

/* --- calls ------------------------------------------------------------------------------------------------ */

static void drain(Context *context);

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    BEGIN();
    static int times[GPUS];
    unsigned told_mib = planned(~0U, "told free gpu%d nth%d", current->gpu, ++times[current->gpu]);
    *free_bytes = told_mib == ~0U ? left(physical[current->gpu]) : (uint64_t)told_mib << 20;
    *total = (uint64_t)planned(TOTAL_MIB, "total gpu%d", physical[current->gpu]) << 20;
    return SUCCESS;
}

int cuMemAlloc_v2(Pointer *pointer, size_t size)
{
    BEGIN();
    int gpu = current->gpu, file = -1;
    if (!size)
        return INVALID_VALUE;
    if (size > left(physical[gpu]) || (file = gpu_file(size)) < 0)
        return OUT_OF_MEMORY;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        close(file);
        return OUT_OF_MEMORY;
    }
    *pointer = (uintptr_t)memory;
    holds(gpu, (int64_t)size);
    keep((Block){.base = *pointer, .size = size, .kind = DEVICE, .owner = gpu, .maker = gpu, .file = file});
    return SUCCESS;
}

static int of_host(Pointer *pointer, size_t size, enum kind kind)
{
    void *memory = size ? host_memory(size) : NULL;
    if (!memory)
        return size ? OUT_OF_MEMORY : INVALID_VALUE;
    *pointer = (uintptr_t)memory;
    keep((Block){.base = *pointer, .size = size, .kind = kind, .owner = HOST, .maker = current->gpu});
    return SUCCESS;
}

int cuMemAllocManaged(Pointer *pointer, size_t size, unsigned flags)
{
    BEGIN();
    return flags == 1 || flags == 2 ? of_host(pointer, size, MANAGED) : INVALID_VALUE;
}

/* Bytes of page-locked memory in this process. */
static uint64_t pinned(void)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&lock);
    for (Block *block = blocks; block; block = block->next)
        sum += block->kind == PINNED ? block->size : 0;
    pthread_mutex_unlock(&lock);
    return sum;
}

int cuMemHostAlloc(void **pointer, size_t size, unsigned flags)
{
    BEGIN();
    (void)flags;
    Pointer address = 0;
    unsigned budget_mib = planned(~0U, "pinned memory");
    int code = budget_mib != ~0U && pinned() + size > (uint64_t)budget_mib << 20 ? OUT_OF_MEMORY
                                                                                : of_host(&address, size, PINNED);
    *pointer = (void *)(uintptr_t)address;
    return code;
}

/* Let go of a block; the lock is held. */
static void let_go(Block *block)
{
    munmap((void *)(uintptr_t)block->base, block->size);
    if (block->kind == DEVICE) {
        close(block->file);
        holds(block->owner, -(int64_t)block->size);
    }
    forget(block);
}

/* Free a block of one of these kinds, by the address that it begins at. */
static int give_back(Pointer pointer, unsigned kinds)
{
    drain(current);
    if (lost)
        return lost;
    pthread_mutex_lock(&lock);
    Block *block = at(pointer);
    int good = block && block->base == pointer && kinds >> block->kind & 1;
    if (good)
        let_go(block);
    pthread_mutex_unlock(&lock);
    return good ? SUCCESS : INVALID_VALUE;
}

int cuMemFree_v2(Pointer pointer)
{
    BEGIN();
    return pointer ? give_back(pointer, 1 << DEVICE | 1 << MANAGED) : SUCCESS;
}

int cuMemFreeHost(void *pointer)
{
    BEGIN();
    return give_back((uintptr_t)pointer, 1 << PINNED);
}

/* What is known of a pointer: the attributes that the replica asks for. */
int cuPointerGetAttribute(void *value, int which, Pointer pointer)
{
    BEGIN();
    int code = SUCCESS;
    pthread_mutex_lock(&lock);
    Block *block = at(pointer);
    if (!block) {
        code = INVALID_VALUE;
    } else {
        switch (which) {
        case 2: *(unsigned *)value = block->owner == HOST ? 1 : 2; break;
        case 8: *(unsigned char *)value = block->kind == MANAGED; break;
        case 9: *(int *)value = block->owner == HOST ? block->maker : block->owner; break;
        case 10: *(unsigned char *)value = block->kind == DEVICE; break;
        case 11: *(Pointer *)value = block->base; break;
        case 12: *(size_t *)value = block->size; break;
        default: code = INVALID_VALUE;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

/* What a context made goes with it. */
static void abandon(int gpu)
{
    pthread_mutex_lock(&lock);
    for (Block *block = blocks, *next; block; block = next) {
        next = block->next;
        if (block->maker == gpu && block->kind != MAPPED)
            let_go(block);
    }
    pthread_mutex_unlock(&lock);
}
