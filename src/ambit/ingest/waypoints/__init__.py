"""What any API family's objects mean at waypoints, with pods and without."""
