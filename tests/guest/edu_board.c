// SPDX-License-Identifier: MIT
// A board with QEMU's edu on it, as platform devices: no PCI function as far as user space is concerned.
//
// It takes the edu card with the highest address, which no driver may have. `kind` says who drives the board:
//
// - "own": the driver here, with nodes of all sorts:
//     edu-board   the card's registers and interrupt, and maps that mmap refuses
//     edu-memory  memory for the card, one page that the card's transfers reach, and no interrupt
//     twin, twin  two nodes of one name: of the one, the driver refuses mmap, and a second opener of the other
// - "pdrv": uio_pdrv_genirq, a driver of Linux
// - "dmem": uio_dmem_genirq, another, with one region of memory
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_data/uio_dmem_genirq.h>
#include <linux/platform_device.h>
#include <linux/uio_driver.h>

static char *kind = "own";
module_param(kind, charp, 0444);

enum { BOARD, MEMORY, TWIN, OTHER_TWIN, MOST };

struct board {
	struct uio_info info;
	spinlock_t lock;
	bool masked;
	unsigned long opened;
};

static struct pci_dev *card;
static struct platform_device *devices[MOST];

static irqreturn_t handle(int irq, struct uio_info *info)
{
	struct board *board = info->priv;

	spin_lock(&board->lock);
	if (!board->masked)
		disable_irq_nosync(irq);
	board->masked = true;
	spin_unlock(&board->lock);
	return IRQ_HANDLED;
}

static int control(struct uio_info *info, s32 on)
{
	struct board *board = info->priv;
	unsigned long flags;

	spin_lock_irqsave(&board->lock, flags);
	if (on && board->masked)
		enable_irq(info->irq);
	else if (!on && !board->masked)
		disable_irq_nosync(info->irq);
	board->masked = !on;
	spin_unlock_irqrestore(&board->lock, flags);
	return 0;
}

static int refuse(struct uio_info *info, struct vm_area_struct *area)
{
	return -EPERM;
}

static int open_once(struct uio_info *info, struct inode *inode)
{
	struct board *board = info->priv;

	return test_and_set_bit(0, &board->opened) ? -EBUSY : 0;
}

static int release(struct uio_info *info, struct inode *inode)
{
	struct board *board = info->priv;

	clear_bit(0, &board->opened);
	return 0;
}

static void add_map(struct board *board, const char *name, phys_addr_t address, unsigned long offset,
		    resource_size_t size, int type)
{
	int index = 0;

	while (board->info.mem[index].size)
		index++;
	board->info.mem[index].name = name;
	board->info.mem[index].addr = address;
	board->info.mem[index].offs = offset;
	board->info.mem[index].size = size;
	board->info.mem[index].memtype = type;
}

static int probe(struct platform_device *device)
{
	struct board *board = devm_kzalloc(&device->dev, sizeof(*board), GFP_KERNEL);
	phys_addr_t bar = pci_resource_start(card, 0);
	unsigned long page;
	dma_addr_t bus;

	if (!board)
		return -ENOMEM;
	spin_lock_init(&board->lock);
	board->info.priv = board;
	board->info.version = "1";
	board->info.irq = UIO_IRQ_NONE;
	switch (device->id) {
	case BOARD:
		page = devm_get_free_pages(&device->dev, GFP_KERNEL | __GFP_ZERO, 0);
		if (!page)
			return -ENOMEM;
		board->info.name = "edu-board";
		board->info.irq = card->irq;
		board->info.handler = handle;
		board->info.irqcontrol = control;
		irq_set_status_flags(card->irq, IRQ_DISABLE_UNLAZY);
		add_map(board, "registers", bar, 0, PAGE_SIZE, UIO_MEM_PHYS);
		add_map(board, "dma-registers", bar, 0x80, PAGE_SIZE, UIO_MEM_PHYS);
		add_map(board, "unaligned", bar + 0x80, 0, PAGE_SIZE, UIO_MEM_PHYS);
		add_map(board, "odd-size", bar, 0, 0x98, UIO_MEM_PHYS);
		add_map(board, "", page + 0x10, 0, 0x100, UIO_MEM_LOGICAL);
		break;
	case MEMORY:
		if (dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(32)) ||
		    !dmam_alloc_coherent(&device->dev, 2 * PAGE_SIZE, &bus, GFP_KERNEL))
			return -ENOMEM;
		board->info.name = "edu-memory";
		add_map(board, "buffer", bus, 0, 2 * PAGE_SIZE, UIO_MEM_PHYS);
		add_map(board, "nothing", ~(phys_addr_t)0, 0, PAGE_SIZE, UIO_MEM_PHYS);
		break;
	default:
		board->info.name = "twin";
		if (device->id == TWIN) {
			board->info.mmap = refuse;
		} else {
			board->info.open = open_once;
			board->info.release = release;
		}
		add_map(board, "same", bar, 0, PAGE_SIZE, UIO_MEM_PHYS);
		add_map(board, "same", bar + PAGE_SIZE, 0, PAGE_SIZE, UIO_MEM_PHYS);
		break;
	}
	return devm_uio_register_device(&device->dev, &board->info);
}

static struct platform_driver driver = { .driver = { .name = "edu_board" }, .probe = probe };

static void remove_devices(void)
{
	int id;

	for (id = 0; id < MOST; id++)
		platform_device_unregister(devices[id]);
}

static int add_device(int id, const struct platform_device_info *info)
{
	struct platform_device *added = platform_device_register_full(info);

	if (IS_ERR(added))
		return PTR_ERR(added);
	devices[id] = added;
	return 0;
}

static int add_own(void)
{
	int id, error = 0;

	for (id = 0; id < MOST && !error; id++) {
		struct platform_device_info info = { .name = "edu_board", .id = id, .dma_mask = DMA_BIT_MASK(32) };

		error = add_device(id, &info);
	}
	return error;
}

// The card's registers, as a device tree may have them: those below 0x80, and those of DMA.
static int add_for_linux(void)
{
	static unsigned int sizes[] = { 2 * PAGE_SIZE };
	resource_size_t bar = pci_resource_start(card, 0);
	struct resource resources[] = {
		DEFINE_RES_MEM_NAMED(bar, 0x80, "registers"),
		DEFINE_RES_MEM_NAMED(bar + 0x80, 0x20, "dma-registers"),
	};
	struct uio_dmem_genirq_pdata dmem = {
		.uioinfo = { .name = "edu-dmem", .version = "1", .irq = card->irq },
		.dynamic_region_sizes = sizes,
		.num_dynamic_regions = ARRAY_SIZE(sizes),
	};
	struct uio_info pdrv = { .name = "edu-pdrv", .version = "1", .irq = card->irq };
	bool is_dmem = !strcmp(kind, "dmem");
	struct platform_device_info info = {
		.name = is_dmem ? "uio_dmem_genirq" : "uio_pdrv_genirq",
		.id = 0,
		.res = resources,
		.num_res = ARRAY_SIZE(resources),
		.data = is_dmem ? (void *)&dmem : (void *)&pdrv,
		.size_data = is_dmem ? sizeof(dmem) : sizeof(pdrv),
		.dma_mask = DMA_BIT_MASK(32),
	};

	return add_device(0, &info);
}

static int __init begin(void)
{
	struct pci_dev *next = NULL;
	int error = -ENODEV;

	// The kernel's list has them in the order in which they were found: one that was found again is its last.
	while ((next = pci_get_device(0x1234, 0x11e8, next))) {
		if (card && pci_dev_id(next) < pci_dev_id(card))
			continue;
		pci_dev_put(card);
		card = pci_dev_get(next);
	}
	if (!card || card->driver)
		goto no_card;
	error = pci_enable_device(card);
	if (error)
		goto no_card;
	pci_set_master(card);
	error = platform_driver_register(&driver);
	if (error)
		goto no_driver;
	error = strcmp(kind, "own") ? add_for_linux() : add_own();
	if (!error)
		return 0;
	remove_devices();
	platform_driver_unregister(&driver);
no_driver:
	pci_clear_master(card);
	pci_disable_device(card);
no_card:
	pci_dev_put(card);
	return error;
}

static void __exit end(void)
{
	remove_devices();
	platform_driver_unregister(&driver);
	pci_clear_master(card);
	pci_disable_device(card);
	pci_dev_put(card);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("Dual MIT/GPL");
