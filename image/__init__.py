"""The container image, built without a container engine and without a base image to pull."""
