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

// pluginConfig is the part of the CNI configuration that this plugin reads. This plugin is the
// last one in the list, so the previous result contains the addresses of the pod.
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

// pluginError is an error in the format that CNI requires.
type pluginError struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Message    string `json:"msg"`
}

// codeTryAgainLater is the CNI error code for temporary failures.
const codeTryAgainLater = 11

// runPlugin handles one call of the CNI plugin and returns the exit code.
func runPlugin(command string, in io.Reader, out io.Writer) int {
	if command == "VERSION" {
		fmt.Fprintln(out, `{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}`)
		return 0
	}
	var config pluginConfig
	err := json.NewDecoder(in).Decode(&config)
	if err == nil {
		err = notifyEnforcer(command, config)
	}
	if err != nil {
		failure := pluginError{CNIVersion: config.CNIVersion, Code: codeTryAgainLater, Message: err.Error()}
		if err := json.NewEncoder(out).Encode(failure); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	if command == "ADD" {
		// This plugin does not change the result of the other plugins.
		fmt.Fprintln(out, string(config.PrevResult))
	}
	return 0
}

// notifyEnforcer sends the command to the enforcer and, for ADD, waits until the pod's addresses
// are in the nftables table.
func notifyEnforcer(command string, config pluginConfig) error {
	request := pluginRequest{Command: command, Pod: podFromArguments(os.Getenv("CNI_ARGS")), Sandbox: os.Getenv("CNI_CONTAINERID")}
	switch command {
	case "ADD":
		var result pluginResult
		if err := json.Unmarshal(config.PrevResult, &result); err != nil {
			return fmt.Errorf("failed to parse the result of the previous CNI plugin: %w", err)
		}
		for _, ip := range result.IPs {
			if address := ip.Address.Addr(); address.Is4() {
				request.Addresses = append(request.Addresses, address)
			}
		}
		return send(config.Socket, request, requestTimeout)
	case "DEL":
		// Removing a sandbox must succeed even while the enforcer is down.
		if err := send(config.Socket, request, time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return nil
	default:
		return nil
	}
}

// podFromArguments returns the key of the pod that the container runtime names in its
// arguments: K8S_POD_NAMESPACE=…;K8S_POD_NAME=….
func podFromArguments(arguments string) string {
	values := map[string]string{}
	for _, argument := range strings.Split(arguments, ";") {
		name, value, _ := strings.Cut(argument, "=")
		values[name] = value
	}
	return podKey(values["K8S_POD_NAMESPACE"], values["K8S_POD_NAME"])
}

// send sends a request to the enforcer, which may still be starting, and waits for its response.
func send(socket string, request pluginRequest, timeout time.Duration) error {
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
	if err := json.NewEncoder(connection).Encode(request); err != nil {
		return err
	}
	var response pluginResponse
	if err := json.NewDecoder(connection).Decode(&response); err != nil {
		return err
	}
	if response.Error != "" {
		return errors.New(response.Error)
	}
	return nil
}
