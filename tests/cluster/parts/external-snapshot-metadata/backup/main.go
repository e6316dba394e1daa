// Command backup copies what a snapshot of a block volume holds, or what has changed since another
// one, from the snapshot's own volume into a device, and says which ranges those were.
//
// It is a backup tool in small: it asks the cluster where changed blocks are told, asks there for
// them, and reads and writes nothing else, until it compares the two devices at the end.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kubernetes-csi/external-snapshot-metadata/pkg/iterator"
	"k8s.io/client-go/rest"
)

var (
	namespace  = flag.String("namespace", "", "The namespace of the snapshots.")
	snapshot   = flag.String("snapshot", "", "The VolumeSnapshot to back up.")
	base       = flag.String("base", "", "The one that the target holds already; none for a full backup.")
	source     = flag.String("source", "", "The device with the snapshot's content.")
	target     = flag.String("target", "", "The device with the backup.")
	driver     = flag.String("driver", "", "The driver's name; left out, the snapshot says it.")
	maxResults = flag.Int("max-results", 0, "How many ranges a message may hold; 0 leaves it to the driver.")
	timeout    = flag.Duration("timeout", time.Minute, "How long all of it may take.")
)

// Each record goes into the copy, and into the list that is printed.
type emitters []iterator.IteratorEmitter

func (all emitters) SnapshotMetadataIteratorRecord(number int, metadata iterator.IteratorMetadata) error {
	for _, each := range all {
		if err := each.SnapshotMetadataIteratorRecord(number, metadata); err != nil {
			return err
		}
	}
	return nil
}

func (all emitters) SnapshotMetadataIteratorDone(records int) error {
	for _, each := range all {
		if err := each.SnapshotMetadataIteratorDone(records); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := backUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func backUp(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	clients, err := iterator.BuildClients(config)
	if err != nil {
		return err
	}
	from, err := os.Open(*source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(*target, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	return iterator.GetSnapshotMetadata(ctx, iterator.Args{
		Clients:          clients,
		Namespace:        *namespace,
		SnapshotName:     *snapshot,
		PrevSnapshotName: *base,
		CSIDriver:        *driver,
		MaxResults:       int32(*maxResults),
		Emitter: emitters{
			&iterator.VerifierEmitter{SourceDevice: from, TargetDevice: to},
			&iterator.JSONEmitter{Writer: os.Stdout},
		},
	})
}
