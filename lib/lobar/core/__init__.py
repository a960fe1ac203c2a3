"""What every other package uses: exit statuses, code version, thread pools, progress and logs, boxes."""
