package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	storage "k8s.io/api/storage/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	finalizer = "attacher/disks-csi-test"
	again     = time.Second // what failed is tried again after that
)

// Attaches what is to be attached and detaches what is to be detached, for ever.
func attach(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for {
		if err := follow(context.Background(), client); err != nil {
			fmt.Fprintln(os.Stderr, "volumes:", err)
		}
		time.Sleep(again)
	}
}

// Until the watch ends or something fails: then all is listed anew.
func follow(ctx context.Context, client kubernetes.Interface) error {
	attachments := client.StorageV1().VolumeAttachments()
	all, err := attachments.List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	var failed error // one disk that is stuck keeps no other
	for _, one := range all.Items {
		failed = errors.Join(failed, settle(ctx, client, &one))
	}
	if failed != nil {
		return failed
	}
	changes, err := attachments.Watch(ctx, meta.ListOptions{ResourceVersion: all.ResourceVersion})
	if err != nil {
		return err
	}
	defer changes.Stop()
	for change := range changes.ResultChan() {
		if one, is := change.Object.(*storage.VolumeAttachment); is && change.Type != "DELETED" {
			if err := settle(ctx, client, one); err != nil {
				return err
			}
		}
	}
	return nil
}

// Makes it so for one attachment.
func settle(ctx context.Context, client kubernetes.Interface, one *storage.VolumeAttachment) error {
	name := one.Spec.Source.PersistentVolumeName
	if one.Spec.Attacher != exclusive || name == nil {
		return nil
	}
	attachments := client.StorageV1().VolumeAttachments()
	volume, err := client.CoreV1().PersistentVolumes().Get(ctx, *name, meta.GetOptions{})
	if err != nil {
		return err
	}
	which := disk(volume.Spec.CSI.VolumeHandle)
	has := slices.Contains(one.Finalizers, finalizer)
	changed := one.DeepCopy()
	switch {
	case one.DeletionTimestamp != nil && has:
		if err := which.detach(one.Spec.NodeName); err != nil {
			return err
		}
		changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == finalizer })
		_, err = attachments.Update(ctx, changed, meta.UpdateOptions{})
	case one.DeletionTimestamp == nil && !has:
		// Before it is attached, so that it cannot go unnoticed.
		changed.Finalizers = append(changed.Finalizers, finalizer)
		_, err = attachments.Update(ctx, changed, meta.UpdateOptions{})
	case one.DeletionTimestamp == nil && !one.Status.Attached:
		if err := which.attach(one.Spec.NodeName); err != nil {
			return err
		}
		changed.Status = storage.VolumeAttachmentStatus{Attached: true}
		_, err = attachments.UpdateStatus(ctx, changed, meta.UpdateOptions{})
	}
	return err
}
