.PHONY: setup demo demo-once test test-kubernetes soak lint bench image clean
setup demo demo-once test test-kubernetes soak lint bench image clean:
	@./dev $@
