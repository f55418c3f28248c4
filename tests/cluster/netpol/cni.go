package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// pluginConfig is the part of a CNI configuration that this plugin reads. It stands last in
// its list, so the result of those before it says which addresses the pod has got.
type pluginConfig struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

// pluginResult is the part of a CNI result that this plugin reads.
type pluginResult struct {
	IPs []struct {
		Address netip.Prefix `json:"address"`
	} `json:"ips"`
}

// pluginError is how CNI wants failures told.
type pluginError struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Message    string `json:"msg"`
}

// codeTryAgainLater is CNI's code for a failure that passes.
const codeTryAgainLater = 11

// runPlugin does what one call of a CNI plugin asks, and returns the exit code.
func runPlugin(command string, in io.Reader, out io.Writer) int {
	if command == "VERSION" {
		fmt.Fprintln(out, `{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}`)
		return 0
	}
	var config pluginConfig
	err := json.NewDecoder(in).Decode(&config)
	if err == nil {
		err = tell(command, config)
	}
	if err != nil {
		failure := pluginError{CNIVersion: config.CNIVersion, Code: codeTryAgainLater, Message: err.Error()}
		if err := json.NewEncoder(out).Encode(failure); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	if command == "ADD" {
		// This plugin changes nothing of what the others made.
		fmt.Fprintln(out, string(config.PrevResult))
	}
	return 0
}

func tell(command string, config pluginConfig) error {
	notice := notice{Command: command, Pod: podFromArguments(os.Getenv("CNI_ARGS")), Sandbox: os.Getenv("CNI_CONTAINERID")}
	switch command {
	case "ADD":
		var result pluginResult
		if err := json.Unmarshal(config.PrevResult, &result); err != nil {
			return fmt.Errorf("failed to read the addresses: %w", err)
		}
		for _, ip := range result.IPs {
			if address := ip.Address.Addr(); address.Is4() {
				notice.Addresses = append(notice.Addresses, address)
			}
		}
		return send(config.Socket, notice, fenceTimeout)
	case "DEL":
		// What is left of a sandbox must go also while the enforcer is away.
		if err := send(config.Socket, notice, time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return nil
	default:
		return nil
	}
}

// podFromArguments finds the pod in the arguments that container runtimes give:
// K8S_POD_NAMESPACE=…;K8S_POD_NAME=….
func podFromArguments(arguments string) string {
	values := map[string]string{}
	for _, argument := range strings.Split(arguments, ";") {
		name, value, _ := strings.Cut(argument, "=")
		values[name] = value
	}
	return podKey(values["K8S_POD_NAMESPACE"], values["K8S_POD_NAME"])
}

// send tells the enforcer, which may be starting, and waits for its answer.
func send(socket string, notice notice, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	connection, err := net.Dial("unix", socket)
	for err != nil && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
		connection, err = net.Dial("unix", socket)
	}
	if err != nil {
		return fmt.Errorf("failed to reach the NetworkPolicy enforcer: %w", err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(deadline); err != nil {
		return err
	}
	if err := json.NewEncoder(connection).Encode(notice); err != nil {
		return err
	}
	var answer answer
	if err := json.NewDecoder(connection).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}
