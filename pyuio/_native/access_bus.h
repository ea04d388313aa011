/* SPDX-License-Identifier: MIT */
/*
 * One load or store of a device's register, and nothing else.
 *
 * Order: accesses to one window happen in the order of the calls. On x86 the hardware keeps uncached accesses in order,
 * and only the compiler must not reorder them. On aarch64 the hardware keeps device memory in order with itself, but
 * not with ordinary memory such as a DMA buffer. Hence the barriers, which are those of Linux's readl and writel
 * (arch/arm64/include/asm/io.h). No processor keeps a write-combining mapping (resourceN_wc) in order with itself.
 */
#ifndef PYUIO_ACCESS_BUS_H
#define PYUIO_ACCESS_BUS_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE static __attribute__((noinline, unused))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if defined(__x86_64__) || defined(__i386__)
#define AFTER_READ() __asm__ volatile("" ::: "memory")
#define BEFORE_WRITE() __asm__ volatile("" ::: "memory")
#elif defined(__aarch64__)
#define AFTER_READ() __asm__ volatile("dmb oshld" ::: "memory")
#define BEFORE_WRITE() __asm__ volatile("dmb oshst" ::: "memory")
#else
#define AFTER_READ() __sync_synchronize()
#define BEFORE_WRITE() __sync_synchronize()
#endif

/* Once these three are inlined, only the case of the constant width is left. */

INLINE unsigned long swapped(unsigned long value, int bits)
{
    switch (bits) {
    case 16: return __builtin_bswap16((uint16_t)value);
    case 32: return __builtin_bswap32((uint32_t)value);
    case 64: return (unsigned long)__builtin_bswap64(value);
    default: return value;
    }
}

INLINE unsigned long load(const volatile void *at, int bits)
{
    unsigned long value;

    switch (bits) {
    case 8: value = *(const volatile uint8_t *)at; break;
    case 16: value = *(const volatile uint16_t *)at; break;
    case 32: value = *(const volatile uint32_t *)at; break;
    default: value = *(const volatile unsigned long *)at; break; /* 64 bits, on 64-bit processors only: inside() */
    }
    AFTER_READ();
    return value;
}

INLINE void store(volatile void *at, unsigned long value, int bits)
{
    BEFORE_WRITE();
    switch (bits) {
    case 8: *(volatile uint8_t *)at = (uint8_t)value; break;
    case 16: *(volatile uint16_t *)at = (uint16_t)value; break;
    case 32: *(volatile uint32_t *)at = (uint32_t)value; break;
    default: *(volatile unsigned long *)at = value; break;
    }
}

/* For runs of accesses. They are not inlined, so that the compiler sees one access per call. It can then neither merge
 * two, nor use an instruction that also changes its address register, which a hypervisor on aarch64 cannot decode. */
OUT_OF_LINE void load_to(unsigned char *to, const volatile unsigned char *from, size_t width)
{
    switch (width) {
    case 1: *to = *from; break;
    case 2: memcpy(to, &(uint16_t){*(const volatile uint16_t *)from}, 2); break;
    case 4: memcpy(to, &(uint32_t){*(const volatile uint32_t *)from}, 4); break;
    default: memcpy(to, &(unsigned long){*(const volatile unsigned long *)from}, sizeof(long)); break;
    }
}

OUT_OF_LINE void store_from(volatile unsigned char *to, const unsigned char *from, size_t width)
{
    uint16_t value16;
    uint32_t value32;
    unsigned long value;

    switch (width) {
    case 1: *to = *from; break;
    case 2: memcpy(&value16, from, 2); *(volatile uint16_t *)to = value16; break;
    case 4: memcpy(&value32, from, 4); *(volatile uint32_t *)to = value32; break;
    default: memcpy(&value, from, sizeof value); *(volatile unsigned long *)to = value; break;
    }
}

#endif
