// SPDX-License-Identifier: MIT
// The baseline for a driver's cycle over each way to a card: raise the card's interrupt, read it, acknowledge it, unmask
// it, in one thread. Prints how many cycles there were in a second.
//
//   ways_loop uio NODE CONFIG RESOURCE COUNT       by uio_pci_generic
//   ways_loop intx GROUP ADDRESS COUNT             by vfio-pci
//   ways_loop msi GROUP ADDRESS COUNT              by vfio-pci
//
// The card is QEMU's edu: writing to 0x60 raises the interrupt, writing to 0x64 acknowledges it.

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BAR_SIZE (1 << 20)
#define RAISE 0x60
#define ACKNOWLEDGE 0x64
#define COMMAND 4
#define BUS_MASTER 0x0004
#define INTERRUPT_DISABLE 0x0400

static void fail(const char *what)
{
    fprintf(stderr, "ways_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int opened(const char *path)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        fail(path);
    return file;
}

static volatile uint32_t *mapped(int file, off_t offset)
{
    void *memory = mmap(NULL, BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset);
    if (memory == MAP_FAILED)
        fail("mapping the BAR");
    return memory;
}

struct way {
    volatile uint32_t *bar;
    int source;      // what is read
    size_t size;     // bytes of a read
    int unmask_file; // the configuration space, or the function's file; -1: nothing is masked
    int is_uio;
    uint16_t command; // the command register with the interrupt enabled
};

static struct way open_uio(char **arguments)
{
    struct way way = {.size = 4, .is_uio = 1};
    way.source = opened(arguments[0]);
    way.unmask_file = opened(arguments[1]);
    way.bar = mapped(opened(arguments[2]), 0);
    if (pread(way.unmask_file, &way.command, 2, COMMAND) != 2)
        fail("reading the command register");
    way.command &= (uint16_t)~INTERRUPT_DISABLE;
    return way;
}

static struct way open_vfio(char **arguments, uint32_t index)
{
    struct way way = {.size = 8, .unmask_file = -1};
    int container = opened("/dev/vfio/vfio"), group = opened(arguments[0]);
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0 ||
        ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
        fail("setting up the IOMMU");
    int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, arguments[1]);
    struct vfio_region_info bar = {.argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX};
    struct vfio_region_info config = {.argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX};
    if (device < 0 || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar) < 0 ||
        ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
        fail(arguments[1]);
    way.bar = mapped(device, (off_t)bar.offset);
    uint16_t command;
    if (pread(device, &command, 2, (off_t)config.offset + COMMAND) != 2)
        fail("reading the command register");
    command |= BUS_MASTER; // a message is a write to memory
    if (pwrite(device, &command, 2, (off_t)config.offset + COMMAND) != 2)
        fail("writing the command register");
    way.source = eventfd(0, EFD_CLOEXEC);
    char buffer[sizeof(struct vfio_irq_set) + sizeof(int)];
    struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;
    *set = (struct vfio_irq_set){.argsz = sizeof buffer,
                                 .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                                 .index = index,
                                 .count = 1};
    memcpy(set->data, &way.source, sizeof(int));
    if (ioctl(device, VFIO_DEVICE_SET_IRQS, set) < 0)
        fail("enabling the interrupt");
    if (index == VFIO_PCI_INTX_IRQ_INDEX)
        way.unmask_file = device;
    return way;
}

static void unmask(struct way *way)
{
    static struct vfio_irq_set set = {.argsz = sizeof set,
                                      .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
                                      .index = VFIO_PCI_INTX_IRQ_INDEX,
                                      .count = 1};
    if (way->unmask_file < 0)
        return;
    if (way->is_uio ? pwrite(way->unmask_file, &way->command, 2, COMMAND) != 2
                    : ioctl(way->unmask_file, VFIO_DEVICE_SET_IRQS, &set) < 0)
        fail("unmasking");
}

int main(int count, char **arguments)
{
    if (count < 5)
        return 2;
    int is_uio = strcmp(arguments[1], "uio") == 0;
    uint32_t index = strcmp(arguments[1], "msi") == 0 ? VFIO_PCI_MSI_IRQ_INDEX : VFIO_PCI_INTX_IRQ_INDEX;
    struct way way = is_uio ? open_uio(arguments + 2) : open_vfio(arguments + 2, index);
    int cycles = atoi(arguments[count - 1]);
    uint64_t came;
    struct timespec start, end;
    way.bar[ACKNOWLEDGE / 4] = ~0u;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < cycles; i++) {
        unmask(&way);
        way.bar[RAISE / 4] = 1;
        if (read(way.source, &came, way.size) != (ssize_t)way.size)
            fail("reading the interrupt");
        way.bar[ACKNOWLEDGE / 4] = 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.1f\n", cycles / ((double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9));
    return 0;
}
