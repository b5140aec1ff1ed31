{{/*
The container, for sidecar and gateway alike.

  context  the chart's own
  kind     native, beside or gateway
  grace    the seconds that the pod may take to end
*/}}
{{- define "tidegate.container" -}}
{{- $values := .context.Values }}
{{- $isGateway := eq .kind "gateway" }}
- name: tidegate
  image: {{ include "tidegate.image" .context | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- if eq .kind "native" }}
  restartPolicy: Always
  {{- end }}
  args: [proxy]
  env:
    {{- if include "tidegate.configMapName" .context }}
    - { name: TIDEGATE_CONFIG, value: /etc/tidegate/tidegate.yaml }
    {{- end }}
    {{- with $values.upstream }}
    - { name: TIDEGATE_UPSTREAM, value: {{ . | quote }} }
    {{- end }}
    - { name: TIDEGATE_LISTEN, value: {{ printf "%s:%d" ($isGateway | ternary $values.bindHost "127.0.0.1") (int $values.ports.calls) | quote }} }
    - { name: TIDEGATE_ADMIN, value: {{ printf "127.0.0.1:%d" (int $values.ports.admin) | quote }} }
    - { name: TIDEGATE_HEALTH, value: {{ printf "%s:%d" $values.bindHost (int $values.ports.health) | quote }} }
    {{- if $values.intercept.enabled }}
    - { name: TIDEGATE_INTERCEPT, value: {{ printf "127.0.0.1:%d" (int $values.ports.proxy) | quote }} }
    {{- end }}
    {{- if include "tidegate.hasState" .context }}
    - { name: TIDEGATE_CA, value: /var/lib/tidegate }
    {{- end }}
    {{- with $values.workers }}
    - { name: TIDEGATE_WORKERS, value: {{ . | toString | quote }} }
    {{- end }}
    - { name: TERMINATION_GRACE_PERIOD_SECONDS, value: {{ .grace | toString | quote }} }
    {{- with $values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    {{- if $isGateway }}
    - { name: calls, containerPort: {{ $values.ports.calls }} }
    {{- end }}
    - { name: tidegate-health, containerPort: {{ $values.ports.health }} }
  startupProbe:
    httpGet: { path: /readyz, port: tidegate-health }
    {{- toYaml $values.probes.startup | nindent 4 }}
  livenessProbe:
    httpGet: { path: /livez, port: tidegate-health }
    {{- toYaml $values.probes.liveness | nindent 4 }}
  readinessProbe:
    httpGet: { path: /readyz, port: tidegate-health }
    {{- toYaml $values.probes.readiness | nindent 4 }}
  {{- if and (eq .kind "beside") $values.sidecar.preStopSeconds }}
  lifecycle:
    # An image with nothing in it has no `sleep`, and clusters before 1.29 have none for it.
    preStop: { exec: { command: [/tidegate, sleep, {{ printf "%ds" (int $values.sidecar.preStopSeconds) | quote }}] } }
  {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- toYaml $values.securityContext | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- $mounts := include "tidegate.volumeMounts" .context }}
  {{- with $mounts | trim }}
  volumeMounts:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "tidegate.volumeMounts" -}}
{{- if include "tidegate.configMapName" . }}
# The folder, not the file by subPath: that would never change.
- { name: tidegate-config, mountPath: /etc/tidegate, readOnly: true }
{{- end }}
{{- if include "tidegate.hasState" . }}
- { name: tidegate-state, mountPath: /var/lib/tidegate }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the container mounts. */}}
{{- define "tidegate.volumes" -}}
{{- with include "tidegate.configMapName" . }}
- name: tidegate-config
  configMap: { name: {{ . }} }
{{- end }}
{{- if include "tidegate.hasState" . }}
- name: tidegate-state
  {{- toYaml .Values.stateVolume | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
