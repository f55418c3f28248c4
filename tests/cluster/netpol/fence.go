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

// notice is what the CNI plugin tells about a sandbox. Each connection carries one, and gets
// one answer.
type notice struct {
	// Command is CNI's: ADD or DEL.
	Command   string       `json:"command"`
	Pod       string       `json:"pod"`
	Sandbox   string       `json:"sandbox"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// answer has no error when what was asked is in the kernel.
type answer struct {
	Error string `json:"error,omitempty"`
}

// fenceTimeout is how long a pod's network may wait. kubelet tries again after a failure.
const fenceTimeout = 20 * time.Second

// serveFence answers the CNI plugin until the context ends.
func serveFence(ctx context.Context, socket string, enforcer *enforcer) error {
	// A killed process leaves its socket.
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
			if err := answerNotice(ctx, connection, enforcer); err != nil {
				log.Printf("failed to answer the CNI plugin: %v", err)
			}
		}()
	}
}

func answerNotice(ctx context.Context, connection net.Conn, enforcer *enforcer) error {
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	if err := connection.SetDeadline(time.Now().Add(fenceTimeout)); err != nil {
		return err
	}
	var notice notice
	if err := json.NewDecoder(connection).Decode(&notice); err != nil {
		return err
	}
	var answer answer
	if notice.Command == "DEL" {
		enforcer.release(notice.Pod, notice.Sandbox)
	} else if err := enforcer.fence(ctx, notice.Pod, notice.Sandbox, notice.Addresses); err != nil {
		answer.Error = err.Error()
	}
	return json.NewEncoder(connection).Encode(answer)
}
