// Package sidecar holds what the stand-ins of the CSI sidecars share.
package sidecar

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
)

// Set by the linker.
var version = "unknown"

// ParseFlags adds the flags that every sidecar takes and parses the command line.
func ParseFlags() {
	klog.InitFlags(nil)
	show := flag.Bool("version", false, "Show the version and exit.")
	_ = flag.Bool("automaxprocs", false, "Taken for the real sidecar's sake; Go does it by itself.")
	flag.Parse()
	if *show {
		fmt.Println(version)
		os.Exit(0)
	}
	klog.InfoS("This is a stand-in of the sidecar for tests", "version", version)
}

// Connect waits for the driver's socket and asks for the driver's name.
func Connect(
	ctx context.Context, address string, timeout time.Duration, options ...connection.Option,
) (*grpc.ClientConn, string, error) {
	conn, err := connection.ConnectWithoutMetrics(ctx, address, options...)
	if err != nil {
		return nil, "", fmt.Errorf("connecting to %s: %w", address, err)
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	name, err := rpc.GetDriverName(bounded, conn)
	if err != nil {
		return nil, "", fmt.Errorf("asking %s for the driver's name: %w", address, err)
	}
	klog.InfoS("Connected", "driver", name)
	return conn, name, nil
}

// Fail logs what went wrong and ends the program.
func Fail(err error, doing string) {
	klog.ErrorS(err, doing)
	klog.FlushAndExit(klog.ExitFlushTimeout, 1)
}
