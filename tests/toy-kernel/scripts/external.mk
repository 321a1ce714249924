# What a kernel leaves in its build folder for modules of others: builds what M's Kbuild names, beside it.

-include $(M)/Makefile
-include $(M)/Kbuild

MODULES := $(obj-m:%.o=$(M)/%.ko)
TARGET := $(INSTALL_MOD_PATH)/lib/modules/6.1.9-toy/$(INSTALL_MOD_DIR)

.SECONDARY:

# `needs` and `exports` of a Kbuild are names of symbols.
modules: $(MODULES)
	@for name in $(needs); do cat $(KBUILD_EXTRA_SYMBOLS) /dev/null | grep -q "	$$name	" || { \
		echo "ERROR: modpost: \"$$name\" [$(M)/$(firstword $(obj-m:.o=)).ko] undefined!"; exit 1; }; done
	@for name in $(exports); do printf '0x00000000\t%s\tmod\tEXPORT_SYMBOL_GPL\t\n' $$name; done \
		>$(M)/Module.symvers
	@printf '%s\n' $(MODULES) >$(M)/modules.order

$(M)/%.o: $(M)/%.c
	@echo "$* $(if $(findstring jobserver,$(MAKEFLAGS)),in the pool)" >>$(M)/compiled
	@if grep -q TAKES_FOREVER $<; then touch $(M)/started; sleep 1000; fi
	@$(CC) $(KCFLAGS) -c -o $@ $<

$(M)/%.ko: $(M)/%.o
	@cp $< $@

modules_install:
	@mkdir -p $(TARGET)
	@cp $(MODULES) $(TARGET)
