// Command csi-node-driver-registrar tells the kubelet of a CSI driver, as Kubernetes' sidecar of
// that name does, by the kubelet's protocol for plugins: a socket in the kubelet's folder of
// plugins, on which the kubelet asks for the driver's name and socket and says how it went.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"csi-local-path/tests/cluster/parts/standins/internal/sidecar"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

var (
	csiAddress       = flag.String("csi-address", "/run/csi/socket", "The driver's socket, as seen here.")
	driverSocket     = flag.String("kubelet-registration-path", "", "The driver's socket, as the kubelet sees it.")
	pluginsDirectory = flag.String("plugin-registration-path", "/registration", "The kubelet's folder of plugins, as seen here.")
	timeout          = flag.Duration("timeout", time.Second, "How long a call to the driver may take.")
	httpEndpoint     = flag.String("http-endpoint", "", "Where /healthz is served; nowhere if empty.")
	mode             = flag.String("mode", "registration", "registration, or kubelet-registration-probe, which does nothing.")
)

type registrar struct {
	registration.UnsafeRegistrationServer
	driver string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              r.driver,
		Endpoint:          *driverSocket,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r registrar) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		// A restart of the container is the next try.
		sidecar.Fail(errors.New(status.Error), "The kubelet refused the driver")
	}
	klog.InfoS("The kubelet has registered the driver", "driver", r.driver)
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	sidecar.ParseFlags()
	if *mode == "kubelet-registration-probe" {
		return
	}
	if *driverSocket == "" {
		sidecar.Fail(errors.New("it is required"), "--kubelet-registration-path is missing")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx); err != nil {
		sidecar.Fail(err, "Registration failed")
	}
}

func serve(ctx context.Context) error {
	conn, driver, err := sidecar.Connect(ctx, *csiAddress, *timeout)
	if err != nil {
		return err
	}
	conn.Close()

	socket := filepath.Join(*pluginsDirectory, driver+"-reg.sock")
	// A container that was killed leaves its socket, and the kubelet watches for a new one.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer os.Remove(socket)
	if *httpEndpoint != "" {
		go serveHealth(socket)
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, registrar{driver: driver})
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

func serveHealth(socket string) {
	http.HandleFunc("/healthz", func(response http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(socket); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(response, "ok")
	})
	sidecar.Fail(http.ListenAndServe(*httpEndpoint, nil), "Serving /healthz failed")
}
