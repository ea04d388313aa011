// SPDX-License-Identifier: MIT
// The baseline for pyuio's interrupt latency: the loop at the end of Peter Chubb's patch of 2005, in C (open, mlockall,
// SCHED_FIFO, read in a loop). The program also raises the interrupts, in the same manner for every way of reading them.
//
//   patch_loop read SOURCE MASKING RESOURCE RECORDS COUNT STATUS ACKNOWLEDGE CPU PRIORITY
//   patch_loop raise RESOURCE RECORDS COUNT STATUS RAISE INTERVAL CPU PRIORITY
//   patch_loop rate SOURCE MASKING RESOURCE RECORDS COUNT STATUS ACKNOWLEDGE RAISE CPU PRIORITY
//
// On uio_pci_generic, SOURCE is /dev/uioN, MASKING the card's configuration space, and RESOURCE its BAR: files. On
// vfio-pci only the process that has the card can open it, and gives this one its descriptors: SOURCE is fd:EVENTFD,
// RESOURCE is fd:DEVICE:OFFSET:SIZE, of the BAR in the function's file, and MASKING is vfio:DEVICE for INTx, or `none` for
// a message, which nothing masks. STATUS, ACKNOWLEDGE and RAISE are offsets of 32-bit registers in the BAR. Writing to RAISE sets bits of the status, writing to ACKNOWLEDGE
// clears them, and the card raises its line while any bit is set. The K-th interrupt sets bit K modulo 32, so that each
// interrupt can be told from the others, even if several arrive as one.
//
// RECORDS is a file that is mapped: a 64-bit count, and then the records. `raise` records the time of each interrupt;
// `read` the time when read returned, the time when the status had been read, and the status; `rate` the time when each
// read returned. Times are CLOCK_MONOTONIC in ns.
// Each command prints "ready" on standard output; then `raise` waits for a byte on standard input.

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL
#define INTERRUPT_DISABLE 0x0400
#define LAST_WAIT (2 * BILLION) // how long to wait for the acknowledgement of raised interrupts

static void fail(const char *what)
{
    fprintf(stderr, "patch_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * BILLION + time.tv_nsec;
}

// Opens a file; or returns the descriptor of fd:N.
static int opened(const char *path)
{
    int file = strncmp(path, "fd:", 3) == 0 ? atoi(path + 3) : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        fail(path);
    return file;
}

// Maps a whole file; or SIZE bytes at OFFSET of fd:N:OFFSET:SIZE.
static void *map(const char *path)
{
    struct stat about;
    long long offset = 0, size = 0;
    int file = opened(path), given = sscanf(path, "fd:%*d:%lld:%lld", &offset, &size) == 2;
    if (!given && fstat(file, &about) < 0)
        fail(path);
    void *memory = mmap(NULL, (size_t)(given ? size : about.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, offset);
    if (memory == MAP_FAILED)
        fail(path);
    if (!given)
        close(file);
    return memory;
}

// The patch's recipe. Priority 0 sets only the CPU.
static void become_real_time(int cpu, int priority)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        fail("sched_setaffinity");
    if (priority == 0)
        return;
    struct sched_param wanted = {.sched_priority = priority};
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        fail("mlockall");
    if (sched_setscheduler(0, SCHED_FIFO, &wanted) < 0)
        fail("sched_setscheduler");
}

static void say_ready(void)
{
    if (write(1, "ready\n", 6) != 6)
        fail("standard output");
}

// ---- The card ----

static volatile uint32_t *registers;
static int source;
static size_t count_size; // bytes that are read from `source`: a UIO node's total, or an eventfd's count
static int masking;       // the configuration space, or by VFIO the function's file; -1: nothing masks
static int by_vfio;
static uint16_t command; // the command register with the interrupt enabled

static void open_card(const char *source_path, const char *masking_path, const char *resource_path)
{
    registers = map(resource_path);
    source = opened(source_path);
    count_size = strncmp(source_path, "fd:", 3) == 0 ? sizeof(uint64_t) : sizeof(uint32_t);
    by_vfio = strncmp(masking_path, "vfio:", 5) == 0;
    masking = by_vfio ? atoi(masking_path + 5) : strcmp(masking_path, "none") == 0 ? -1 : opened(masking_path);
    if (masking < 0 || by_vfio)
        return;
    if (pread(masking, &command, sizeof command, 4) != sizeof command)
        fail(masking_path);
    command &= (uint16_t)~INTERRUPT_DISABLE;
}

static void set_masked(int masked)
{
    uint16_t value = masked ? command | INTERRUPT_DISABLE : command;
    struct vfio_irq_set request = {
        .argsz = sizeof request,
        .flags = VFIO_IRQ_SET_DATA_NONE | (masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK),
        .index = VFIO_PCI_INTX_IRQ_INDEX,
        .count = 1,
    };
    if (masking < 0)
        return;
    if (by_vfio ? ioctl(masking, VFIO_DEVICE_SET_IRQS, &request) < 0
                : pwrite(masking, &value, sizeof value, 4) != sizeof value)
        fail("masking the interrupt");
}

static void wait_for_interrupt(void)
{
    uint64_t count;
    if (read(source, &count, count_size) != (ssize_t)count_size)
        fail("reading the interrupt");
}

// ---- The commands ----

static void read_interrupts(uint64_t *records, uint64_t count, int status, int acknowledge)
{
    uint64_t seen = 0;
    say_ready();
    while (seen < count) {
        set_masked(0);
        wait_for_interrupt();
        int64_t time = now();
        uint32_t bits = registers[status / 4];
        int64_t then = now();
        registers[acknowledge / 4] = bits;
        if (bits == 0)
            continue; // a previous turn has acknowledged it already
        uint64_t *record = records + 1 + 3 * records[0];
        record[0] = (uint64_t)time;
        record[1] = (uint64_t)then;
        record[2] = bits;
        records[0]++;
        seen += (uint64_t)__builtin_popcount(bits);
    }
    set_masked(1);
}

static uint64_t random_number(void)
{
    static uint64_t state = 88172645463325252u; // Marsaglia, "Xorshift RNGs", 2003
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void raise_interrupts(uint64_t *records, uint64_t count, int status, int raise, int64_t interval)
{
    char go;
    say_ready();
    if (read(0, &go, 1) != 1)
        fail("standard input");
    int64_t next = now();
    for (uint64_t index = 0; index < count; index++) {
        // Raise at irregular times, even if the last one is not served yet: a slow reader does not delay the next one.
        next += interval / 2 + (int64_t)(random_number() % (uint64_t)interval);
        struct timespec until = {.tv_sec = next / BILLION, .tv_nsec = next % BILLION};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        uint32_t bit = (uint32_t)1 << index % 32;
        int held_up = 0;
        while (registers[status / 4] & bit) { // 32 interrupts are not served yet
            held_up = 1;
            if (now() > next + LAST_WAIT)
                return;
        }
        // The latency of an interrupt that had to wait counts from its planned time.
        records[1 + index] = (uint64_t)(held_up ? next : now());
        registers[raise / 4] = bit;
        records[0] = index + 1;
    }
    int64_t end = now() + LAST_WAIT;
    while (registers[status / 4] != 0 && now() < end) {
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
}

static void measure_rate(uint64_t *records, uint64_t count, int status, int acknowledge, int raise)
{
    say_ready();
    set_masked(1);
    registers[raise / 4] = 1;
    while (records[0] < count) {
        set_masked(0);
        wait_for_interrupt();
        records[1 + records[0]] = (uint64_t)now();
        uint32_t bits = registers[status / 4];
        registers[acknowledge / 4] = bits;
        if (++records[0] < count)
            registers[raise / 4] = 1;
    }
    set_masked(1);
}

static long number(const char *text)
{
    return strtol(text, NULL, 0);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); // by VFIO this process keeps the card from being given back
    if (argc == 11 && strcmp(argv[1], "read") == 0) {
        open_card(argv[2], argv[3], argv[4]);
        become_real_time((int)number(argv[9]), (int)number(argv[10]));
        read_interrupts(map(argv[5]), (uint64_t)number(argv[6]), (int)number(argv[7]), (int)number(argv[8]));
    } else if (argc == 10 && strcmp(argv[1], "raise") == 0) {
        registers = map(argv[2]);
        become_real_time((int)number(argv[8]), (int)number(argv[9]));
        raise_interrupts(map(argv[3]), (uint64_t)number(argv[4]), (int)number(argv[5]), (int)number(argv[6]),
                         number(argv[7]));
    } else if (argc == 12 && strcmp(argv[1], "rate") == 0) {
        open_card(argv[2], argv[3], argv[4]);
        become_real_time((int)number(argv[10]), (int)number(argv[11]));
        measure_rate(map(argv[5]), (uint64_t)number(argv[6]), (int)number(argv[7]), (int)number(argv[8]),
                     (int)number(argv[9]));
    } else {
        fprintf(stderr, "patch_loop: wrong usage; see the head of its source\n");
        return 2;
    }
    return 0;
}
