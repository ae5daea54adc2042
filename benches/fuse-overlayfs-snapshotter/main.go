// Command fuse-overlayfs-snapshotter is a rival for benches/ctr-run: containerd's own overlay snapshotter, whose mounts a FUSE program makes.
// Debian does not package the snapshotter that people use with fuse-overlayfs; it answers the same mounts.
// It is built in GOPATH mode from the Go sources that Debian packages.
//
//	fuse-overlayfs-snapshotter SOCKET ROOT
package main

import (
	"context"
	"log"
	"net"
	"os"
	"strings"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/overlay"
	"google.golang.org/grpc"
)

// inFuse has every overlay mounted by fuse-overlayfs, but for those that a layer is unpacked into: they are not what is measured.
type inFuse struct {
	snapshots.Snapshotter
}

func (s inFuse) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	return converted(key, mounts), err
}

func (s inFuse) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.View(ctx, key, parent, opts...)
	return converted(key, mounts), err
}

func (s inFuse) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Mounts(ctx, key)
	return converted(key, mounts), err
}

func converted(key string, mounts []mount.Mount) []mount.Mount {
	for at := range mounts {
		if mounts[at].Type != "overlay" || strings.Contains(key, "/extract-") {
			continue
		}
		mounts[at].Type = "fuse3.fuse-overlayfs"
		var options []string
		for _, option := range mounts[at].Options {
			if option != "index=off" {
				options = append(options, option)
			}
		}
		mounts[at].Options = options
	}
	return mounts
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: fuse-overlayfs-snapshotter SOCKET ROOT")
	}
	snapshotter, err := overlay.NewSnapshotter(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(inFuse{snapshotter}))
	log.Fatal(server.Serve(listener))
}
