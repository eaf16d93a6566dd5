/* Other processes' memory: a handle names a process, its file and whose memory that is. */

typedef union {
    char reserved[64];
    struct {
        char mark[8];
        int pid, file, gpu;
        uint64_t size;
    } in;
} IpcHandle;

static const char MARK[8] = "standin";

int cuIpcGetMemHandle(IpcHandle *handle, Pointer pointer)
{
    BEGIN();
    memset(handle, 0, sizeof *handle);
    pthread_mutex_lock(&lock);
    Block *block = at(pointer);
    int good = block && block->kind == DEVICE;
    if (good) {
        memcpy(handle->in.mark, MARK, sizeof MARK);
        handle->in.pid = getpid();
        handle->in.file = block->file;
        handle->in.gpu = block->owner;
        handle->in.size = block->size;
    }
    pthread_mutex_unlock(&lock);
    return good ? SUCCESS : INVALID_VALUE;
}

/* The memory that a handle names, or -1: its process or the allocation is gone. */
static int file_of(const IpcHandle *handle)
{
    char path[64], target[64] = "";
    snprintf(path, sizeof path, "/proc/%d/fd/%d", handle->in.pid, handle->in.file);
    if (readlink(path, target, sizeof target - 1) < 0 || !strstr(target, "memfd:stand-in-gpu"))
        return -1;
    return open(path, O_RDWR | O_CLOEXEC);
}

int cuIpcOpenMemHandle_v2(Pointer *pointer, IpcHandle handle, unsigned flags)
{
    BEGIN();
    int gpu = current->gpu, owner = handle.in.gpu;
    if (memcmp(handle.in.mark, MARK, sizeof MARK) != 0 || owner < 0 || owner >= GPUS)
        return INVALID_HANDLE;
    if (handle.in.pid == getpid())
        return INVALID_CONTEXT; /* not in the process that exported it */
    if (gpu != owner && !contexts[gpu].peer[owner]) {
        if (!(flags & 1) || !can_access(gpu, owner))
            return PEER_ACCESS_UNSUPPORTED;
        contexts[gpu].peer[owner] = 1;
    }
    int file = file_of(&handle);
    if (file < 0)
        return INVALID_VALUE;
    void *memory = mmap(NULL, handle.in.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return INVALID_VALUE;
    *pointer = (uintptr_t)memory;
    keep((Block){.base = *pointer, .size = handle.in.size, .kind = OPENED, .owner = owner, .maker = gpu});
    return SUCCESS;
}

int cuIpcCloseMemHandle(Pointer pointer)
{
    BEGIN();
    return give_back(pointer, 1 << OPENED);
}
