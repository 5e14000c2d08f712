package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const kubelet = "/var/lib/kubelet"

// One driver on one node.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	name, node string
}

func serveNode(node string) error {
	ended := make(chan error)
	for _, name := range []string{exclusive, shared} {
		one := &driver{name: name, node: node}
		serve(one.socket(), ended, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, one)
			csi.RegisterNodeServer(server, one)
		})
		serve(filepath.Join(kubelet, "plugins_registry", name+"-reg.sock"), ended, func(server *grpc.Server) {
			registration.RegisterRegistrationServer(server, registrar{driver: one})
		})
	}
	return <-ended
}

func serve(socket string, ended chan<- error, register func(*grpc.Server)) {
	go func() {
		ended <- func() error {
			if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
				return err
			}
			if err := os.RemoveAll(socket); err != nil {
				return err
			}
			listener, err := net.Listen("unix", socket)
			if err != nil {
				return err
			}
			server := grpc.NewServer()
			register(server)
			return server.Serve(listener)
		}()
	}()
}

func (d *driver) socket() string { return filepath.Join(kubelet, "plugins", d.name, "csi.sock") }

// Tells the kubelet of the driver.
type registrar struct {
	registration.UnimplementedRegistrationServer
	driver *driver
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.driver.name, Endpoint: r.driver.socket(),
		SupportedVersions: []string{"1.0.0"}}, nil
}

func (r registrar) NotifyRegistrationStatus(_ context.Context, told *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !told.PluginRegistered {
		fmt.Fprintln(os.Stderr, "volumes: not registered:", told.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	stages := &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
		Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}
	if d.name == shared {
		return &csi.NodeGetCapabilitiesResponse{}, nil
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{stages}}, nil
}

// Only the node that has the disk mounts it.
func (d *driver) NodeStageVolume(_ context.Context, order *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	which := disk(order.VolumeId)
	has, err := which.node()
	if err == nil && has != d.node {
		err = fmt.Errorf("disk %s is attached to %q, not to node %s", which, has, d.node)
	}
	if err == nil {
		err = mounted(order.StagingTargetPath, "-o", "loop", "-t", "ext4", which.image())
	}
	return &csi.NodeStageVolumeResponse{}, told(err)
}

func (d *driver) NodeUnstageVolume(_ context.Context, order *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, told(unmounted(order.StagingTargetPath))
}

func (d *driver) NodePublishVolume(_ context.Context, order *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	from := order.StagingTargetPath
	if d.name == shared {
		from = disk(order.VolumeId).folder()
	}
	return &csi.NodePublishVolumeResponse{}, told(mounted(order.TargetPath, "--bind", from))
}

func (d *driver) NodeUnpublishVolume(_ context.Context, order *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	err := unmounted(order.TargetPath)
	if err == nil {
		err = os.RemoveAll(order.TargetPath)
	}
	return &csi.NodeUnpublishVolumeResponse{}, told(err)
}

func told(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Internal, err.Error())
}

// Once, however often it is asked for.
func mounted(at string, how ...string) error {
	is, err := isMounted(at)
	if err != nil || is {
		return err
	}
	if err := os.MkdirAll(at, 0o750); err != nil {
		return err
	}
	return command("mount", append(how, at)...)
}

func unmounted(at string) error {
	is, err := isMounted(at)
	if err != nil || !is {
		return err
	}
	return command("umount", at)
}

func isMounted(at string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(text), "\n") {
		if words := strings.Fields(line); len(words) > 4 && words[4] == at {
			return true, err
		}
	}
	return false, err
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
