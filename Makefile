.PHONY: setup demo demo-once test test-kubernetes lint bench image clean
setup demo demo-once test test-kubernetes lint bench image clean:
	@./dev $@
