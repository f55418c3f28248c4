// Package main is CoreDNS with the plugins that the cluster's Corefile names.
//
// CoreDNS's own main package has every plugin, among them clients of several clouds, and takes
// four times as long to build. Here it also shares its libraries with Kubernetes.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	coremain.Run()
}
