// Package conformance runs containerd's own test suite for snapshotters against the socket that LAMINA_SOCKET names.
// It is built in GOPATH mode from the Go sources that Debian packages.
package conformance

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

var plugins int64

func TestSnapshotter(t *testing.T) {
	testutil.RequiresRoot(t)
	address := os.Getenv("LAMINA_SOCKET")
	if address == "" {
		t.Fatal("LAMINA_SOCKET is not set")
	}
	testsuite.SnapshotterSuite(t, "lamina", func(_ context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		connection, err := grpc.Dial(dialer.DialAddress(address),
			grpc.WithInsecure(), grpc.WithContextDialer(dialer.ContextDialer))
		if err != nil {
			return nil, nil, err
		}
		// Cases run side by side, and each expects a snapshotter of its own: one daemon serves any number of plugin names.
		name := fmt.Sprintf("case-%d", atomic.AddInt64(&plugins, 1))
		return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), name), connection.Close, nil
	})
}
