// A CSI driver for disks that one node at a time can have, and for folders that all can, and what attaches the disks.
//
//	volumes node NAME         serves both drivers on the node of that name
//	volumes attach KUBECONFIG does what Kubernetes' attach/detach controller asks for, and no more
//
// The disks are files in a folder that all machines see, each with an ext4 file system; who has one is written beside it.
// What is marked there as stuck is not attached or detached, as a cloud that has forgotten a disk does.
package main

import (
	"fmt"
	"os"
)

const (
	exclusive = "disks.csi.test"   // needs attachment: one node
	shared    = "folders.csi.test" // needs none: any node
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "volumes:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "node" {
		return serveNode(args[1])
	}
	if len(args) == 2 && args[0] == "attach" {
		return attach(args[1])
	}
	return fmt.Errorf("usage: volumes node NAME | volumes attach KUBECONFIG")
}
