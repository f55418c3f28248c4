package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"time"
)

// pluginRequest is a request of the CNI plugin about one sandbox. Each connection carries one
// request and one response.
type pluginRequest struct {
	// Command is the CNI command, ADD or DEL.
	Command   string       `json:"command"`
	Pod       string       `json:"pod"`
	Sandbox   string       `json:"sandbox"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// pluginResponse is the response to a pluginRequest. An empty error means success: after ADD,
// the kernel enforces the policies of the pod.
type pluginResponse struct {
	Error string `json:"error,omitempty"`
}

// requestTimeout limits how long the CNI plugin may delay a pod. kubelet retries after a failure.
const requestTimeout = 20 * time.Second

// servePlugin handles requests of the CNI plugin until the context ends.
func servePlugin(ctx context.Context, socket string, enforcer *enforcer) error {
	// A killed process leaves its socket behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	for {
		connection, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if err := handleRequest(ctx, connection, enforcer); err != nil {
				log.Printf("failed to handle a request of the CNI plugin: %v", err)
			}
		}()
	}
}

func handleRequest(ctx context.Context, connection net.Conn, enforcer *enforcer) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := connection.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	var request pluginRequest
	if err := json.NewDecoder(connection).Decode(&request); err != nil {
		return err
	}
	var response pluginResponse
	if request.Command == "DEL" {
		enforcer.removeSandbox(request.Pod, request.Sandbox)
	} else if err := enforcer.addSandbox(ctx, request.Pod, request.Sandbox, request.Addresses); err != nil {
		response.Error = err.Error()
	}
	return json.NewEncoder(connection).Encode(response)
}
