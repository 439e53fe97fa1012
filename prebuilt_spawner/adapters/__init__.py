"""The interfaces of `prebuilt_spawner.build.interface` on real engines, indexes and disks, and in memory."""
