"""Our own small services that stand for the images of well-known samples: standard library only, few imports."""
