package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// All machines see this folder.
const store = "/srv/volumes"

// A disk by its handle.
type disk string

func (d disk) image() string  { return filepath.Join(store, string(d)+".img") }
func (d disk) holder() string { return filepath.Join(store, string(d)+".node") }
func (d disk) stuck() string  { return filepath.Join(store, string(d)+".stuck") }
func (d disk) folder() string { return filepath.Join(store, string(d)) }

// The node that has it; nobody's is "".
func (d disk) node() (string, error) {
	text, err := os.ReadFile(d.holder())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

func (d disk) attach(node string) error {
	if err := d.mayChange(); err != nil {
		return err
	}
	if _, err := os.Stat(d.image()); err != nil {
		return err
	}
	file, err := os.OpenFile(d.holder(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		has, err := d.node()
		if err == nil && has != node {
			err = fmt.Errorf("disk %s is attached to node %s", d, has)
		}
		return err
	}
	if err != nil {
		return err
	}
	if _, err := file.WriteString(node); err != nil {
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

func (d disk) detach(node string) error {
	if err := d.mayChange(); err != nil {
		return err
	}
	has, err := d.node()
	if err != nil || has != node {
		return err
	}
	return os.Remove(d.holder())
}

func (d disk) mayChange() error {
	if _, err := os.Stat(d.stuck()); err == nil {
		return fmt.Errorf("disk %s is stuck", d)
	}
	return nil
}
