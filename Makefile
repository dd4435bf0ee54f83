.PHONY: setup demo demo-once test lint bench image clean
setup demo demo-once test lint bench image clean:
	@./dev $@
