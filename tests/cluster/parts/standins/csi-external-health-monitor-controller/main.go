// Command csi-external-health-monitor-controller asks the driver how its volumes are and tells of
// those that are not well by events of their claims, as Kubernetes' sidecar of that name does.
//
// It asks by ListVolumes where the driver has that and tells conditions there, else by
// ControllerGetVolume. Of the real one it lacks the watch for nodes that are gone.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	"csi-local-path/tests/cluster/parts/standins/internal/sidecar"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/leaderelection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

var (
	csiAddress          = flag.String("csi-address", "/run/csi/socket", "The driver's socket.")
	timeout             = flag.Duration("timeout", 15*time.Second, "How long a call to the driver may take.")
	listVolumesInterval = flag.Duration("list-volumes-interval", 5*time.Minute, "How often ListVolumes is asked.")
	monitorInterval     = flag.Duration("monitor-interval", time.Minute, "How often ControllerGetVolume is asked.")

	electLeader = flag.Bool("leader-election", false, "Let only one of several work.")
	namespace   = flag.String("leader-election-namespace", "", "The namespace of the lease; the pod's own if empty.")
	lease       = flag.Duration("leader-election-lease-duration", 15*time.Second, "How long a lease lasts.")
	renew       = flag.Duration("leader-election-renew-deadline", 10*time.Second, "How long the leader tries to renew it.")
	retry       = flag.Duration("leader-election-retry-period", 5*time.Second, "How long to wait between tries.")

	_ = flag.Int("worker-threads", 10, "Taken for the real sidecar's sake; volumes are asked one by one.")
	_ = flag.Duration("volume-list-add-interval", 5*time.Minute, "Taken for the real sidecar's sake.")
	_ = flag.Duration("node-list-add-interval", 5*time.Minute, "Taken for the real sidecar's sake.")
	_ = flag.Bool("enable-node-watcher", false, "Taken for the real sidecar's sake; nodes are not watched.")
	_ = flag.String("http-endpoint", "", "Taken for the real sidecar's sake; nothing is served.")
	_ = flag.String("metrics-path", "/metrics", "Taken for the real sidecar's sake.")
)

type monitor struct {
	driver     string
	controller csi.ControllerClient
	kubernetes kubernetes.Interface
	events     record.EventRecorder
	abnormal   map[string]bool // by handle, as told last
}

func main() {
	sidecar.ParseFlags()
	ctx := context.Background()
	conn, driver, err := sidecar.Connect(
		ctx, *csiAddress, *timeout, connection.OnConnectionLoss(connection.ExitOnConnectionLoss()))
	if err != nil {
		sidecar.Fail(err, "The driver cannot be reached")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		sidecar.Fail(err, "This is no pod of a cluster")
	}
	client := kubernetes.NewForConfigOrDie(config)
	run := func(ctx context.Context) {
		if err := watch(ctx, conn, driver, client); err != nil {
			sidecar.Fail(err, "Monitoring failed")
		}
	}
	if !*electLeader {
		run(ctx)
		return
	}
	election := leaderelection.NewLeaderElection(client, "external-health-monitor-leader-"+driver, run)
	if *namespace != "" {
		election.WithNamespace(*namespace)
	}
	election.WithLeaseDuration(*lease)
	election.WithRenewDeadline(*renew)
	election.WithRetryPeriod(*retry)
	if err := election.Run(); err != nil {
		sidecar.Fail(err, "Leader election failed")
	}
}

func watch(ctx context.Context, conn *grpc.ClientConn, driver string, client kubernetes.Interface) error {
	bounded, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	can, err := rpc.GetControllerCapabilities(bounded, conn)
	if err != nil {
		return err
	}
	if !can[csi.ControllerServiceCapability_RPC_VOLUME_CONDITION] {
		return errors.New("the driver does not tell the condition of volumes")
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&corev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	host, _ := os.Hostname()
	m := monitor{
		driver:     driver,
		controller: csi.NewControllerClient(conn),
		kubernetes: client,
		events: broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{
			Component: "csi-pv-monitor-controller-" + driver, Host: host,
		}),
		abnormal: map[string]bool{},
	}
	ask, interval := m.getConditions, *monitorInterval
	if can[csi.ControllerServiceCapability_RPC_LIST_VOLUMES] {
		ask, interval = m.listConditions, *listVolumesInterval
	}
	for ; ctx.Err() == nil; time.Sleep(interval) {
		if err := m.round(ctx, ask); err != nil {
			klog.ErrorS(err, "This round failed, the next one tries again")
		}
	}
	return nil
}

// A round asks for the condition of every volume of the driver that a claim has.
func (m *monitor) round(
	ctx context.Context, ask func(context.Context, []v1.PersistentVolume) (map[string]*csi.VolumeCondition, error),
) error {
	all, err := m.kubernetes.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var volumes []v1.PersistentVolume
	for _, volume := range all.Items {
		source := volume.Spec.CSI
		if source != nil && source.Driver == m.driver && volume.Status.Phase == v1.VolumeBound {
			volumes = append(volumes, volume)
		}
	}
	conditions, err := ask(ctx, volumes)
	if err != nil {
		return err
	}
	for _, volume := range volumes {
		if condition := conditions[volume.Spec.CSI.VolumeHandle]; condition != nil {
			m.tell(volume, condition)
		}
	}
	return nil
}

func (m *monitor) tell(volume v1.PersistentVolume, condition *csi.VolumeCondition) {
	handle, claim := volume.Spec.CSI.VolumeHandle, volume.Spec.ClaimRef
	switch {
	case condition.Abnormal:
		m.events.Event(claim, v1.EventTypeWarning, "VolumeConditionAbnormal", condition.Message)
	case m.abnormal[handle]:
		m.events.Event(claim, v1.EventTypeNormal, "VolumeConditionNormal", "The Volume returns to the healthy state")
	}
	m.abnormal[handle] = condition.Abnormal
}

func (m *monitor) listConditions(
	ctx context.Context, _ []v1.PersistentVolume,
) (map[string]*csi.VolumeCondition, error) {
	conditions := map[string]*csi.VolumeCondition{}
	for token := ""; ; {
		bounded, cancel := context.WithTimeout(ctx, *timeout)
		page, err := m.controller.ListVolumes(bounded, &csi.ListVolumesRequest{StartingToken: token})
		cancel()
		if err != nil {
			return nil, err
		}
		for _, entry := range page.Entries {
			conditions[entry.Volume.VolumeId] = entry.Status.GetVolumeCondition()
		}
		if token = page.NextToken; token == "" {
			return conditions, nil
		}
	}
}

func (m *monitor) getConditions(
	ctx context.Context, volumes []v1.PersistentVolume,
) (map[string]*csi.VolumeCondition, error) {
	conditions := map[string]*csi.VolumeCondition{}
	for _, volume := range volumes {
		handle := volume.Spec.CSI.VolumeHandle
		bounded, cancel := context.WithTimeout(ctx, *timeout)
		answer, err := m.controller.ControllerGetVolume(bounded, &csi.ControllerGetVolumeRequest{VolumeId: handle})
		cancel()
		if err != nil {
			klog.ErrorS(err, "Asking for a volume failed", "volume", handle)
			continue
		}
		conditions[handle] = answer.Status.GetVolumeCondition()
	}
	return conditions, nil
}
