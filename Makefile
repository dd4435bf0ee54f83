.PHONY: setup demo demo-once test lint bench clean
setup demo demo-once test lint bench clean:
	@./dev $@
