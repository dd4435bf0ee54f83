.PHONY: setup demo demo-once test test-kubernetes conformance soak lint bench image clean
setup demo demo-once test test-kubernetes conformance soak lint bench image clean:
	@./dev $@
