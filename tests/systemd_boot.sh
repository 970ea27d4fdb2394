#!/usr/bin/env bash
# Boots a real systemd as PID 1 of its own namespaces, on a writable copy (overlay) of a root that is gone afterwards:
# services can be installed, crash and be restarted there, and nothing of it reaches the machine.
#   systemd_boot.sh ROOT SHARE [FROM:TO]...
# ROOT is / for this machine's, or a folder with another one. SHARE is a folder that both sides see under the same path;
# FROM is seen below TO, too.
set -eu
root=$(realpath "$1"); share=$(realpath "$2"); shift 2
export root share mounts="$*"
exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child bash -eu -c '
  mount --make-rprivate /
  over=$share/over; mkdir -p "$over"; mount -t tmpfs tmpfs "$over"; mkdir "$over"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/work" "$over/root"
  cd "$over/root"
  mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
  # Devices of its own: journald makes /dev/log, which must not appear on the machine.
  mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm; mount -t tmpfs tmpfs dev/shm
  for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
  : >"$share/console"; touch dev/console; mount --bind "$share/console" dev/console
  # Without the stock rules of tmpfiles.d; without units of the machine that have no business here.
  for place in run tmp usr/lib/tmpfiles.d etc/tmpfiles.d etc/systemd/system; do
    mkdir -p $place; mount -t tmpfs tmpfs $place
  done
  mkdir -p ".$share"; mount --bind "$share" ".$share"
  for pair in $mounts; do mkdir -p ".${pair#*:}"; mount --bind "${pair%%:*}" ".${pair#*:}"; done
  printf "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n" >etc/systemd/system/test.target
  mkdir old; pivot_root . old; umount -l /old; cd /
  export container=test
  exec /lib/systemd/systemd --system --unit=test.target --log-target=journal-or-kmsg --show-status=0
' >"$share/boot.log" 2>&1
