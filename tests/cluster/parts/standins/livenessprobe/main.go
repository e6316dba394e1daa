// Command livenessprobe answers the kubelet's HTTP probes with what the driver's Probe says, as
// Kubernetes' sidecar of that name does.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"

	"csi-local-path/tests/cluster/parts/standins/internal/sidecar"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
)

var (
	csiAddress   = flag.String("csi-address", "/run/csi/socket", "The driver's socket.")
	probeTimeout = flag.Duration("probe-timeout", 3*time.Second, "How long a call of Probe may take.")
	healthPort   = flag.String("health-port", "9808", "The port of /healthz.")
	httpEndpoint = flag.String("http-endpoint", "", "The address of /healthz, instead of every address with that port.")
)

func main() {
	sidecar.ParseFlags()
	conn, _, err := sidecar.Connect(context.Background(), *csiAddress, *probeTimeout)
	if err != nil {
		sidecar.Fail(err, "The driver cannot be reached")
	}
	conn.Close()

	address := *httpEndpoint
	if address == "" {
		address = net.JoinHostPort("0.0.0.0", *healthPort)
	}
	http.HandleFunc("/healthz", func(response http.ResponseWriter, request *http.Request) {
		if err := probe(request.Context()); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(response, "ok")
	})
	sidecar.Fail(http.ListenAndServe(address, nil), "Serving /healthz failed")
}

// A connection of its own for each probe: one that was kept could outlive the driver's socket.
func probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, *probeTimeout)
	defer cancel()
	conn, err := connection.ConnectWithoutMetrics(ctx, *csiAddress, connection.WithTimeout(*probeTimeout))
	if err != nil {
		return err
	}
	defer conn.Close()
	ready, err := rpc.Probe(ctx, conn)
	if err != nil {
		return err
	}
	if !ready {
		return fmt.Errorf("the driver is not ready")
	}
	return nil
}
