// SPDX-License-Identifier: MIT
// Devices with several UIO nodes each, as drivers with an interrupt for each unit make them.
//
// - a platform device with three;
// - QEMU's pci-testdev with two, whose probe takes `probe_ms` milliseconds, as the drivers of many cards do.
//
// Writing N to the attribute `fire` of the device is an event on its node N.
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/uio_driver.h>

#define MOST 3

static unsigned int probe_ms;
module_param(probe_ms, uint, 0644);

struct nodes {
	int count;
	struct uio_info info[MOST];
};

static struct platform_device *platform;

static ssize_t fire_store(struct device *device, struct device_attribute *attribute, const char *text, size_t length)
{
	struct nodes *nodes = dev_get_drvdata(device);
	unsigned int which;

	if (kstrtouint(text, 0, &which) || which >= nodes->count)
		return -EINVAL;
	uio_event_notify(&nodes->info[which]);
	return length;
}
static DEVICE_ATTR_WO(fire);

static void remove_nodes(struct device *device)
{
	struct nodes *nodes = dev_get_drvdata(device);

	device_remove_file(device, &dev_attr_fire);
	while (nodes->count--)
		uio_unregister_device(&nodes->info[nodes->count]);
	kfree(nodes);
}

static int add_nodes(struct device *device, int count)
{
	static const char *const names[MOST] = { "unit-a", "unit-b", "unit-c" };
	struct nodes *nodes = kzalloc(sizeof(*nodes), GFP_KERNEL);
	int error;

	if (!nodes)
		return -ENOMEM;
	dev_set_drvdata(device, nodes);
	error = device_create_file(device, &dev_attr_fire);
	while (!error && nodes->count < count) {
		struct uio_info *info = &nodes->info[nodes->count];

		info->name = names[nodes->count];
		info->version = "1";
		info->irq = UIO_IRQ_CUSTOM;
		error = uio_register_device(device, info);
		if (!error)
			nodes->count++;
	}
	if (error)
		remove_nodes(device);
	return error;
}

static int probe(struct pci_dev *function, const struct pci_device_id *id)
{
	msleep(probe_ms);
	return add_nodes(&function->dev, 2);
}

static void remove(struct pci_dev *function)
{
	remove_nodes(&function->dev);
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1b36, 0x0005) }, {} };
static struct pci_driver driver = { .name = "several_nodes", .id_table = ids, .probe = probe, .remove = remove };

static int __init begin(void)
{
	int error;

	platform = platform_device_register_simple("several_nodes", 0, NULL, 0);
	if (IS_ERR(platform))
		return PTR_ERR(platform);
	error = add_nodes(&platform->dev, 3);
	if (!error) {
		error = pci_register_driver(&driver);
		if (error)
			remove_nodes(&platform->dev);
	}
	if (error)
		platform_device_unregister(platform);
	return error;
}

static void __exit end(void)
{
	pci_unregister_driver(&driver);
	remove_nodes(&platform->dev);
	platform_device_unregister(platform);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("Dual MIT/GPL");
