// Makes and removes pods by the engine's own interface (CRI), as a kubelet does, but without the rest of a kubelet.
//
// One order a line on standard input, one answer a line on standard output:
//
//	{"make": {"handler": H, "sandbox": PodSandboxConfig, "container": ContainerConfig}}  ->  {"sandbox": ID, "container": ID}
//	{"remove": SANDBOX}                                                                  ->  {}
//
// or {"error": TEXT}. Orders are carried out one after the other.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type pod struct {
	Handler   string          `json:"handler"`
	Sandbox   json.RawMessage `json:"sandbox"`
	Container json.RawMessage `json:"container"`
}

type order struct {
	Make   *pod   `json:"make"`
	Remove string `json:"remove"`
}

type answer struct {
	Sandbox   string `json:"sandbox,omitempty"`
	Container string `json:"container,omitempty"`
	Error     string `json:"error,omitempty"`
}

func main() {
	socket := flag.String("socket", "/run/containerd/containerd.sock", "the engine's")
	limit := flag.Duration("limit", 5*time.Minute, "for each order")
	flag.Parse()
	connection, err := grpc.NewClient("unix://"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer connection.Close()
	engine := cri.NewRuntimeServiceClient(connection)
	lines, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), *limit)
		done, err := carryOut(ctx, engine, lines.Bytes())
		cancel()
		if err != nil {
			done = answer{Error: err.Error()}
		}
		if answers.Encode(done) != nil {
			return
		}
	}
}

func carryOut(ctx context.Context, engine cri.RuntimeServiceClient, line []byte) (answer, error) {
	var what order
	if err := json.Unmarshal(line, &what); err != nil {
		return answer{}, err
	}
	if what.Make != nil {
		return create(ctx, engine, what.Make)
	}
	return answer{}, remove(ctx, engine, what.Remove)
}

func create(ctx context.Context, engine cri.RuntimeServiceClient, pod *pod) (answer, error) {
	sandbox, container := &cri.PodSandboxConfig{}, &cri.ContainerConfig{}
	if err := protojson.Unmarshal(pod.Sandbox, sandbox); err != nil {
		return answer{}, err
	}
	if err := protojson.Unmarshal(pod.Container, container); err != nil {
		return answer{}, err
	}
	ran, err := engine.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: pod.Handler})
	if err != nil {
		return answer{}, fmt.Errorf("sandbox: %w", err)
	}
	made, err := engine.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: ran.PodSandboxId, Config: container, SandboxConfig: sandbox})
	if err != nil {
		return answer{}, fmt.Errorf("container: %w", err)
	}
	if _, err := engine.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return answer{}, fmt.Errorf("start: %w", err)
	}
	return answer{Sandbox: ran.PodSandboxId, Container: made.ContainerId}, nil
}

func remove(ctx context.Context, engine cri.RuntimeServiceClient, sandbox string) error {
	if _, err := engine.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if _, err := engine.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
