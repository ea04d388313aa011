# SPDX-License-Identifier: MIT
# make demo      drive QEMU's edu card from Python, in a guest
# make test      run every test but the long ones (make test-long), as CI does
# make docs      build the documentation as a site, in build/site
# CONTRIBUTING.md says more.

# A distribution's Python is compiled with all optimisations: an emulated guest starts it in half the time that others take.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo /usr/bin/)python3
# The guest's kernel: debian, debian-rt, host, or a path.
KERNEL ?= debian
export KERNEL
FUZZ_SECONDS ?= 600
export PYTHONS
BIN := .venv/bin
# $(call extra,NAME,MODULE): install an extra of pyproject.toml unless MODULE, which it has, is there
extra = $(BIN)/python -c 'import $(2)' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[$(1)]'
# Named after this directory: a virtual environment does not survive a move.
READY := .venv/ready-$(shell pwd | cksum | cut -d' ' -f1)
NATIVE := $(wildcard pyuio/_native/*.c pyuio/_native/*.h pyuio/_native/*.py)
# The guest sees these files read-only and would compile them anew at every start.
PACKAGES := pyuio drivers benchmarks examples tests
COMPILED := .venv/compiled

.PHONY: demo test test-all test-unit test-vm test-guest test-vfio test-arm64 test-iommufd test-long test-sanitize fuzz test-pythons test-processors test-big-endian wheels wheels-arm64 lint docs bench setup clean

demo: $(COMPILED)
	@$(BIN)/pyuio vm fetch "$(KERNEL)" >/dev/null
	@$(BIN)/pyuio vm run --kernel "$(KERNEL)" --device edu --timeout 300 -- $(BIN)/python examples/demo.py

test: $(COMPILED)
	@$(BIN)/python -m tests.run

# Run one part only; T= gives files or options for pytest: make test-guest T='tests/guest/test_edu.py -k factorial'
test-unit: $(COMPILED)
	@$(BIN)/python -m tests.run unit -- $(T)

test-vm: $(COMPILED)
	@$(BIN)/python -m tests.run vm $(if $(T),,cards) -- $(T)

test-guest: $(COMPILED)
	@$(BIN)/python -m tests.run guest $(if $(T),,commands) -- $(T)

# The same tests through VFIO, in a guest with an IOMMU.
test-vfio: $(COMPILED)
	@$(BIN)/python -m tests.run vfio -- $(T)

# The same, and those through VFIO, in guests with an emulated arm64 processor. Their system is made once, in a minute.
test-arm64: export ARCH := arm64
test-arm64: $(COMPILED)
	@sh scripts/setup.sh arm64
	@$(BIN)/python -m tests.run guest $(if $(T),,vfio vm) -- $(T)

# The same on a kernel with iommufd, with Intel's IOMMU and with virtio's. To build it takes 15 minutes of a processor.
test-iommufd: KERNEL := $(CURDIR)/build/iommufd/boot/vmlinuz
test-iommufd: $(COMPILED)
	@$(BIN)/python -m tests.iommufd_kernel build/iommufd >/dev/null
	@$(BIN)/python -m tests.run vfio -- $(or $(T),-m 'not long')
	@IOMMU=virtio $(BIN)/python -m tests.run vfio -- $(or $(T),-m 'not long')

# Tests that take minutes each and are not part of test, and the unit tests on every CPython.
test-long: $(COMPILED)
	@$(call extra,fuzz,atheris)
	@$(call extra,notebook,nbclient)
	@$(call extra,pythons,tox)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m tests.run long

# Both, and a part of test-arm64: the kinds of masking, and two drivers.
test-all:
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-long
	@$(MAKE) --no-print-directory test-arm64 T='$(addprefix tests/guest/,masking test_edu.py test_serial16550.py)'

# All that is for other processors, each emulated.
test-processors: test-arm64 test-big-endian wheels-arm64

# Fuzz the parsers of bytes from outside, with inputs that atheris finds; T= names targets of tests/fuzz/targets.py.
fuzz: $(READY)
	@$(call extra,fuzz,atheris)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m tests.run fuzz -- $(T)

# Test the compiled parts, compiled with AddressSanitizer and UBSan, here and in a guest; T= as for test-unit.
test-sanitize: $(COMPILED)
	@$(BIN)/python -m tests.run sanitize -- $(T)

# Run the unit tests on every CPython that is here, with the wheel that it builds; PYTHONS= names more interpreters.
test-pythons: $(READY)
	@$(call extra,pythons,tox)
	@$(BIN)/python -m tests.run pythons -- $(T)

# Run the unit tests that need no kernel of their own on a big-endian processor, s390x, by QEMU's user-mode emulation.
test-big-endian: $(COMPILED)
	@sh scripts/setup.sh emulation
	@$(call extra,release,twine)
	@$(BIN)/python -m tests.run big-endian -- $(T)

# Build the source distribution and a wheel for each CPython that is here, and check them; in dist/.
wheels: $(READY)
	@$(call extra,release,twine)
	@$(BIN)/python -m tests.run wheels

# Build a wheel for Debian's Python on arm64, there; install it there, test it, and drive a card with it in a guest.
wheels-arm64: $(COMPILED)
	@sh scripts/setup.sh arm64
	@sh scripts/setup.sh emulation
	@$(call extra,release,twine)
	@$(BIN)/python -m tests.run wheels-arm64 -- $(T)

lint: $(READY)
	@$(BIN)/python -m tests.run lint

# Build the site; it starts at build/site/index.html.
docs: $(READY)
	@$(BIN)/python -m tests.run docs

bench: $(READY)
	@$(BIN)/python benchmarks/registers.py
	@$(BIN)/python benchmarks/dma.py
	@$(BIN)/python benchmarks/import_time.py

setup: $(COMPILED)

$(READY): pyproject.toml setup.py scripts/setup.sh $(NATIVE)
	@PYTHON="$(PYTHON)" READY="$@" sh scripts/setup.sh
	@touch $@

$(COMPILED): $(READY) $(shell find $(PACKAGES) -name '*.py')
	@$(BIN)/python -m compileall -q $(PACKAGES) || true
	@touch $@

clean:
	rm -rf .editable .venv build dist *.egg-info pyuio/_native/*.so pyuio/_native/_interrupt.c pyuio/_native/_realtime.c pyuio/_native/_timer.c
